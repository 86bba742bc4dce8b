"""A chapter that keeps the contract and says nothing, for tests that break it in one way each."""

import json
from pathlib import Path

import repository

NAME = "04_neighbours"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
BIBLIOGRAPHY = "@article{steck2019, eprint = {1905.03375}, doi = {10.1145/3308558.3313710}}\n"


def text(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *tags: str, printed: str = "") -> dict:
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    metadata = {"tags": list(tags)} if tags else {}
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": outputs, "execution_count": None}


def notebook(*cells: dict) -> dict:
    """A notebook of these cells as if run from top to bottom; ids and execution counts are filled in."""
    count = 0
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "cells": list(cells),
        "metadata": {"kernelspec": spec, "language_info": {"name": "python"}},
    }


def good_chapter() -> dict:
    """A notebook that notebooks.problems() finds nothing in, as long as it is saved as 04_neighbours.ipynb."""
    here = repository.read()
    cells = [
        text(f"# Neighbours\n\nYou will\n\n- find,\n- weigh and\n- rank.\n\n[Open in Colab]({here.colab(NAME)})"),
        code(
            f"{here.setup}\nfrom recsys_utils import display, plots, training\n\ntraining.seed_everything(0)\n"
            f'plots.use_style()\ndisplay.chapter("{NAME}")',
            printed="not measured yet\n",
        ),
    ]
    for number in range(38):
        cells.append(text(f"## Step {'i' * (number + 1)}\n\n" + "The next cell adds up what the table holds. " * 6))
        cells.append(
            code("a = 1\nb = 2\nc = 3\nprint(a + b + c)", *["nbval-check-output"] * (number < 5), printed="6\n")
        )
    cells[13]["outputs"].append(
        {
            "output_type": "display_data",
            "data": {"image/png": PIXEL, "text/plain": "a dot"},
            "metadata": {"image/png": {"alt": "One dot on a white background."}},
        }
    )
    for order in (1, 2, 3):
        cells += [
            text(f"**Exercise 4.{order}.** Add the numbers from one to ten."),
            code("answer = ...", "exercise"),
            code(
                f'# @title Solution 4.{order} {{display-mode: "form"}}\nanswer = sum(range(11))\n'
                "expected = 10 * 11 // 2\nassert answer == expected",
                "hide-cell",
            ),
        ]
    cells += [
        text("## What we measured"),
        code("print(6)", printed="6\n"),
        text("## Take-aways\n\n- One.\n- Two.\n- Three."),
        text("## References\n\n- Steck (2019), [EASE](https://arxiv.org/abs/1905.03375), 12.5 pages."),
    ]
    return notebook(*cells)


def save(content: dict, folder: Path, name: str = NAME) -> Path:
    """Write the notebook, and a bibliography beside it, into `folder`; returns its path."""
    (folder / "references.bib").write_text(BIBLIOGRAPHY, "utf-8")
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(content), "utf-8")
    return path
