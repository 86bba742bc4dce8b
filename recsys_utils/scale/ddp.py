"""Two towers trained by several processes, with checkpoints: the program that torchrun starts.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --standalone --nproc-per-node 2 --max-restarts 1 -m recsys_utils.scale.ddp --train FOLDER --out FOLDER …

The variable gives every attempt a meeting place of its own. On a cluster the same line runs on each machine, with
--nnodes N --rdzv-backend c10d --rdzv-endpoint HOST:PORT in place of --standalone. --train is what
`scale.spark.write_interactions` writes; all machines must see both folders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump
from torch.nn.parallel import DistributedDataParallel

from recsys_utils.interactions import Interactions
from recsys_utils.models.two_tower_ddp import JoinedBatch, share
from recsys_utils.models.two_tower_torch import TwoTower, log_frequencies, save
from recsys_utils.retrieval import replace_file
from recsys_utils.training import check_settings

CHECKPOINT = "checkpoint.safetensors"
NEEDED = {"embedding_dim", "temperature", "learning_rate", "batch_size", "epochs"}
DEFAULTS = {"logq": 1.0, "n_uniform": 0, "seed": 0}  # as in fit_two_tower


def read_rows(folder: Path | str, n_users: int, n_items: int) -> Interactions:
    """Training rows from a folder of Parquet files, in the order of their column row.

    Raises FileNotFoundError, and ValueError for missing columns, missing values and codes out of range.
    """
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no Parquet files; scale.spark.write_interactions writes them")
    table = pd.concat([pd.read_parquet(file) for file in files])
    if missing := {"user", "item", "row"} - set(table.columns):
        raise ValueError(f"{folder} has the columns {list(table.columns)}; {sorted(missing)} are missing")
    table = table.sort_values("row")
    for name, size in (("user", n_users), ("item", n_items)):
        wrong = ~table[name].between(0, size - 1)  # true for missing values, too
        if wrong.any():
            raise ValueError(f"{name}={table[name][wrong].iloc[0]} in {folder}; expected codes from 0 to {size - 1}")
    return Interactions(table["user"].to_numpy(), table["item"].to_numpy(), user_ids=np.arange(n_users),
                        item_ids=np.arange(n_items), name=Path(folder).name)


def write_checkpoint(path: Path, model: TwoTower, adam: torch.optim.Adam, settings: dict, state: dict) -> None:
    """Weights, Adam's moments, settings and state in one file of numbers; it replaces the old one all at once."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, moments in adam.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value for name, value in moments.items()}
    replace_file(path, dump(tensors, {"settings": json.dumps(settings), "state": json.dumps(state)}))


def read_checkpoint(path: Path, model: TwoTower, adam: torch.optim.Adam, settings: dict) -> dict:
    """Put weights and moments back, and return the state.

    Raises ValueError for a file that is cut or no checkpoint, and for one of other settings.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        theirs, state = json.loads(metadata["settings"]), json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is cut, or no checkpoint of this program ({error}); remove it first") from error
    differs = {name: (theirs.get(name), value) for name, value in settings.items() if theirs.get(name) != value}
    if differs:
        words = ", ".join(f"{name}={old} (asked for {new})" for name, (old, new) in differs.items())
        raise ValueError(f"{path} is of another model: {words}. Ask for its settings, or choose another --out")
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    moments: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            moments.setdefault(int(name.split(".")[1]), {})[name.split(".", 2)[2]] = value
    adam.load_state_dict(adam.state_dict() | {"state": moments})
    return state


def train(rows: Interactions, out: Path, settings: dict, every: int, kill_at: int | None = None) -> TwoTower:
    """Train on this rank's share of every batch, from the checkpoint in `out` if there is one.

    settings: NEEDED and DEFAULTS, as in fit_two_tower; batch_size is that of all ranks together. every: steps between
    two checkpoints. kill_at: the last rank ends itself before this step, the first time. The batches are those of
    chapter 10's fit_two_tower, less the rows that the ranks cannot share equally (see share).
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(settings["seed"])
    model = TwoTower(rows.n_users, rows.n_items, settings["embedding_dim"], settings["temperature"], hidden=[])
    adam = torch.optim.Adam(model.parameters(), settings["learning_rate"], fused=True)
    known, log_q = np.flatnonzero(rows.item_counts), log_frequencies(rows, settings["logq"], settings["n_uniform"])
    seen = torch.where(torch.tensor(rows.matrix().toarray()) > 0, -torch.inf, 0.0)
    joined = DistributedDataParallel(JoinedBatch(model, log_q, seen))
    rng, path = np.random.default_rng(settings["seed"]), out / CHECKPOINT
    identity = settings | {"interactions": rows.data_sha256}
    state = {"epoch": 0, "batch": 0, "step": 0, "rng": rng.bit_generator.state}
    if path.exists():
        state = read_checkpoint(path, model, adam, identity)
        if rank == 0:
            print(f"resumed at step {state['step']}", flush=True)
    first, step = state["batch"], state["step"]
    rng.bit_generator.state = state["rng"]
    for epoch in range(state["epoch"], settings["epochs"]):
        at_start = rng.bit_generator.state
        more = rng.choice(known, (len(rows), settings["n_uniform"]))
        order, size = rng.permutation(len(rows)), settings["batch_size"]
        for batch in range(first, -(-len(rows) // size)):
            mine = share(order[batch * size:(batch + 1) * size], rank, ranks)
            if not len(mine):
                continue  # the last batch has fewer rows than there are ranks
            if step == kill_at and rank == ranks - 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            adam.zero_grad()
            joined(*(torch.from_numpy(part) for part in (rows.users[mine], rows.items[mine], more[mine]))).backward()
            adam.step()
            step += 1
            if rank == 0 and step % every == 0:
                now = {"epoch": epoch, "batch": batch + 1, "step": step, "rng": at_start}
                write_checkpoint(path, model, adam, identity, now)
        first = 0
    return model.eval()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="recsys_utils.scale.ddp", description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="folder of Parquet files with user, item and row")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the model")
    parser.add_argument("--users", type=int, required=True, help="number of users; codes are below it")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON: see train")
    parser.add_argument("--every", type=int, default=100, help="steps between two checkpoints")
    parser.add_argument("--kill-at", type=int, help="to try it out: the last rank dies before this step, once")
    given = parser.parse_args(words)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        parser.error("torchrun starts this program; see the line in its docstring")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        parser.error("set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun: in the store that it would share, "
                     "processes that start anew find the addresses of the dead (seen with torch 2.13)")
    dist.init_process_group("gloo")
    try:
        settings = DEFAULTS | given.settings
        if set(settings) != NEEDED | set(DEFAULTS):
            raise ValueError(f"settings {sorted(given.settings)}; expected {sorted(NEEDED)}, also {sorted(DEFAULTS)}")
        check_settings(**settings)
        if settings["batch_size"] < dist.get_world_size():
            raise ValueError(f"batch_size={settings['batch_size']} cannot be shared by {dist.get_world_size()} ranks")
        given.out.mkdir(parents=True, exist_ok=True)
        rows = read_rows(given.train, given.users, given.items)
        model = train(rows, given.out, settings, given.every, given.kill_at)
        if dist.get_rank() == 0:
            draft = given.out / "model.draft"
            save(model, draft)
            shutil.rmtree(given.out / "model", ignore_errors=True)
            draft.rename(given.out / "model")
    except (ValueError, OSError) as error:
        print(f"rank {dist.get_rank()}: {error}", file=sys.stderr, flush=True)
        return 2
    finally:
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
