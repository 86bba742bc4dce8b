"""Two ranks against one process: the gradient, whole training, a rank that dies; and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from core_checks import world
from recsys_utils import retrieval
from recsys_utils.models.two_tower_ddp import share
from recsys_utils.models.two_tower_torch import TwoTower, fit_two_tower, in_batch_loss, load, log_frequencies, save
from recsys_utils.scale import ddp, spark

SETTINGS = {"embedding_dim": 8, "temperature": 0.2, "learning_rate": 0.01, "batch_size": 64, "epochs": 3}
SETTINGS |= {"n_uniform": 2}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
if sys.platform == "linux":
    ENVIRONMENT["GLOO_SOCKET_IFNAME"] = "lo"


def torchrun(*words, ranks=2, restarts=0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
               "--max-restarts", str(restarts), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


@pytest.fixture(scope="module")
def data():
    return world(n_users=60, n_items=50, n=960)  # a multiple of the batch: no row waits


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory) -> Path:
    return spark.write_interactions(data, tmp_path_factory.mktemp("ddp") / "rows", 3)


def program(folder: Path, out: Path, *words, settings=SETTINGS, users=60) -> list:
    return ["-m", "recsys_utils.scale.ddp", "--train", folder, "--out", out, "--users", users, "--items", 50,
            "--settings", json.dumps(settings), "--every", 10, *words]


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> TwoTower:
    out = tmp_path_factory.mktemp("whole")
    done = torchrun(*program(folder, out))
    assert done.returncode == 0, done.stderr
    return load(out / "model")


def largest_difference(one: TwoTower, other: TwoTower) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


STEP = '''
import sys
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel
from recsys_utils.models.two_tower_ddp import JoinedBatch, share
from recsys_utils.models.two_tower_torch import in_batch_loss, load

folder = sys.argv[1]
towers, given = load(folder + "/towers"), load_file(folder + "/batch.safetensors")
dist.init_process_group("gloo")
parts = [share(given[name], dist.get_rank(), dist.get_world_size()) for name in ("users", "items", "more")]
module = JoinedBatch(towers, given["log_q"], given["seen"])
if sys.argv[2] == "local":
    module.forward = lambda users, items, more: in_batch_loss(towers, users, items, given["log_q"], given["seen"], more)
together = DistributedDataParallel(module)  # kept: without it nothing would average the gradients
together(*parts).backward()
if dist.get_rank() == 0:
    save_file({name: p.grad for name, p in towers.named_parameters()}, folder + "/gradient.safetensors")
dist.destroy_process_group()
'''


@pytest.mark.parametrize("negatives", ["joined", "local"])
def test_two_ranks_have_the_gradient_of_the_joined_batch_and_local_negatives_have_not(data, tmp_path, negatives):
    torch.manual_seed(0)
    towers, log_q = TwoTower(60, 50, 8, 0.2), log_frequencies(data)
    seen = torch.where(torch.tensor(data.matrix().toarray()) > 0, -torch.inf, 0.0)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(data), 64, replace=False)
    users, items = (torch.from_numpy(codes[rows]) for codes in (data.users, data.items))
    more = torch.from_numpy(rng.integers(0, 50, (64, 2), dtype=np.int32))
    in_batch_loss(towers, users, items, log_q, seen, more).backward()
    save(towers, tmp_path / "towers")
    batch = {"log_q": log_q, "seen": seen, "users": users, "items": items, "more": more}
    save_file(batch, tmp_path / "batch.safetensors")
    (tmp_path / "step.py").write_text(STEP, "utf-8")
    done = torchrun(tmp_path / "step.py", tmp_path, negatives)
    assert done.returncode == 0, done.stderr
    theirs = load_file(tmp_path / "gradient.safetensors")
    assert len(theirs) == len(list(towers.parameters()))
    apart = max(float((theirs[name] - p.grad).abs().max()) for name, p in towers.named_parameters())
    assert apart < 1e-5 if negatives == "joined" else apart > 1e-3


def test_one_rank_is_chapter_10(data, folder, tmp_path):
    done = torchrun(*program(folder, tmp_path), ranks=1)
    assert done.returncode == 0, done.stderr
    model, _ = fit_two_tower(data, **SETTINGS)
    assert largest_difference(load(tmp_path / "model"), model) < 1e-6


def test_two_ranks_are_one_process_up_to_rounding(data, whole):
    model, _ = fit_two_tower(data, **SETTINGS)
    assert 0 < largest_difference(whole, model) < 1e-3


@pytest.mark.parametrize("step", [7, 23])
def test_a_killed_rank_is_replaced_and_the_weights_are_those_of_an_uninterrupted_run(folder, whole, tmp_path, step):
    done = torchrun(*program(folder, tmp_path, "--kill-at", step), restarts=1)
    assert done.returncode == 0, done.stderr
    assert ("resumed at step" in done.stdout) == (step >= 10)
    assert largest_difference(whole, load(tmp_path / "model")) <= 1e-7


def test_without_restarts_a_killed_rank_ends_the_run_and_leaves_no_model(folder, tmp_path, whole):
    done = torchrun(*program(folder, tmp_path, "--kill-at", 23))
    assert done.returncode != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [ddp.CHECKPOINT]
    again = torchrun(*program(folder, tmp_path))  # and the same line again goes on from there
    assert "resumed at step 20" in again.stdout
    assert largest_difference(whole, load(tmp_path / "model")) <= 1e-7


def test_parts_of_a_batch_are_disjoint_and_equally_many():
    rows = np.arange(10)
    parts = [share(rows, rank, 3) for rank in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    towers = TwoTower(6, 5, 4, 0.2)
    adam = torch.optim.Adam(towers.parameters(), 0.01)
    (towers(torch.arange(5), torch.arange(5)).sum()).backward()
    adam.step()
    return towers, adam


def test_a_checkpoint_brings_everything_back(model, tmp_path):
    towers, adam = model
    path = tmp_path / ddp.CHECKPOINT
    rng = np.random.default_rng(3).bit_generator.state
    ddp.write_checkpoint(path, towers, adam, {"seed": 1}, {"step": 7, "rng": rng})
    other = TwoTower(6, 5, 4, 0.2)
    moments = torch.optim.Adam(other.parameters(), 0.01)
    assert ddp.read_checkpoint(path, other, moments, {"seed": 1}) == {"step": 7, "rng": rng}
    assert largest_difference(towers, other) == 0
    for number, values in adam.state_dict()["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(moments.state_dict()["state"][number][name], value, rtol=0, atol=0)


def test_a_checkpoint_of_another_model_or_data_is_refused(model, tmp_path):
    path = tmp_path / ddp.CHECKPOINT
    ddp.write_checkpoint(path, *model, {"embedding_dim": 4, "interactions": "abc"}, {})
    with pytest.raises(ValueError, match=r"another model: embedding_dim=4 \(asked for 8\), interactions=abc"):
        ddp.read_checkpoint(path, *model, {"embedding_dim": 8, "interactions": "xyz"})


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_cut_checkpoint_is_refused(model, tmp_path, content):
    path = tmp_path / ddp.CHECKPOINT
    ddp.write_checkpoint(path, *model, {}, {})
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=r"is cut, or no checkpoint of this program .*remove it"):
        ddp.read_checkpoint(path, *model, {})


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(model, tmp_path, monkeypatch):
    path = tmp_path / ddp.CHECKPOINT
    ddp.write_checkpoint(path, *model, {}, {"step": 1})
    monkeypatch.setattr(retrieval, "write_file", lambda draft, content: (draft.write_bytes(content[:99]), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        ddp.write_checkpoint(path, *model, {}, {"step": 2})
    assert ddp.read_checkpoint(path, *model, {}) == {"step": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.drop(columns="item"), r"\['item'\] are missing"),
        (lambda rows: rows.assign(user=rows["user"] + 60), r"user=\d+ in .*; expected codes from 0 to 59"),
        (lambda rows: rows.astype({"item": "Int64"}).assign(item=None), "item=None in .*; expected codes"),
    ],
)
def test_rows_that_cannot_be_used_are_named(data, tmp_path, change, words):
    folder = spark.write_interactions(data, tmp_path / "rows", 1)
    change(pd.read_parquet(folder / "part-00000.parquet")).to_parquet(folder / "part-00000.parquet")
    with pytest.raises(ValueError, match=words):
        ddp.read_rows(folder, 60, 50)
    with pytest.raises(FileNotFoundError, match="holds no Parquet files"):
        ddp.read_rows(tmp_path, 60, 50)


def test_the_order_of_rows_does_not_depend_on_the_files(data, tmp_path):
    one, many = (ddp.read_rows(spark.write_interactions(data, tmp_path / str(n), n), 60, 50) for n in (1, 7))
    np.testing.assert_array_equal(one.users, many.users)
    np.testing.assert_array_equal(one.items, data.items)


def test_settings_that_are_missing_and_starts_without_torchrun_are_said(folder, tmp_path, capsys):
    done = torchrun(*program(folder, tmp_path, settings={"epochs": 3}), ranks=1)
    assert done.returncode != 0
    assert "settings ['epochs']; expected ['batch_size'" in done.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        ddp.main([str(word) for word in program(folder, tmp_path)[2:]])
    assert "torchrun starts this program" in capsys.readouterr().err
