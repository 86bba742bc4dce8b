# Exported from notebooks/16_scaling_out.ipynb; edit there.
"""Written in chapter 16, where it is explained line by line."""

import numpy as np

from recsys_utils.interactions import Interactions


def enlarge(data: Interactions, users: int, items: int, seed: int = 0) -> Interactions:
    """A larger world with the degrees of a small one: `users` copies of each user, `items` of each item.

    Copy a of a user meets, for each row of the user, copy (a + s) mod items of the item; s is drawn for
    each row. Every user copy has as many rows as the user, every item copy users / items times as many
    as the item. Raises ValueError unless users is a multiple of items.
    """
    if users < 1 or items < 1 or users % items:
        raise ValueError(f"users={users}, items={items}; expected counts, users a multiple of items")
    copy, shift = np.arange(users)[:, None], np.random.default_rng(seed).integers(0, items, len(data))
    return Interactions(
        (data.users + data.n_users * copy).ravel(),
        (data.items + data.n_items * ((copy + shift) % items)).ravel(),
        user_ids=np.arange(data.n_users * users), item_ids=np.arange(data.n_items * items),
        timestamps=None if data.timestamps is None else np.tile(data.timestamps, users),
        name=f"{data.name}, {users} x {items}")
