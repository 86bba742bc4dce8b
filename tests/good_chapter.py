"""A chapter that keeps the contract, made from the template, for tests that break it in one way each."""

import json
from pathlib import Path

import notebooks

NAME = "04_neighbours"
BIBLIOGRAPHY = "@article{harper2015, doi = {10.1145/2827872}}\n"


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
    """The template notebook, filled up to the length of a chapter: problems() finds nothing in 04_neighbours.ipynb."""
    content = notebooks.from_template(NAME)
    filling = []
    for number in range(31):
        filling += [
            text(f"## Step {'i' * (number + 1)}\n\n" + "The next cell adds up what the table holds. " * 6),
            code("a = 1\nb = 2\nc = 3\nprint(a + b + c)", printed="6\n"),
        ]
    for cell in content["cells"]:
        cell["source"] = notebooks.source(cell)
    return notebook(*content["cells"][:2], *filling, *content["cells"][2:])


def save(content: dict, folder: Path, name: str = NAME) -> Path:
    """Write the notebook, and a bibliography beside it, into `folder`; returns its path."""
    (folder / "references.bib").write_text(BIBLIOGRAPHY, "utf-8")
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(content), "utf-8")
    return path
