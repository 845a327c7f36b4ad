"""Fabricated submissions: the released notebooks, filled in as students would, and spoilt as students would."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

A1, A2, A3 = "a1_layers_and_alignment", "a2_pieces_of_the_cascade", "a3_beat_the_baseline"

# Answers that are not right, by assignment and exercise; in `PARTLY` they are worth something, in `WRONG` nothing.
PARTLY = {
    A1: {
        "auroc": "def auroc(scores, is_class):\n"
        "    return (scores[is_class][:, None] > scores[~is_class]).float().mean()",
        "mean_over_classes": "def mean_over_classes(values, class_index, classes):\n"
        "    return sum(values[class_index == c].mean() for c in class_index.unique()) / classes",
        "debiased_cka": "def debiased_cka(x, y):\n"
        "    x, y = x - x.mean(0), y - y.mean(0)\n"
        "    return (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())",
    },
    A2: {
        "attend": "def attend(queries, keys, values, heads, is_patch):\n"
        "    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))\n"
        "    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)\n"
        "    return (weights @ v).transpose(1, 2).flatten(2)",
        "learning_rate": "def learning_rate(step, steps, peak, warmup):\n    return peak * (1 - step / steps) ** 0.9",
        "mask_loss": "def mask_loss(logits, labels):\n"
        "    target = labels[:, None] == torch.arange(logits.shape[1])[:, None, None]\n"
        "    present, p = target.flatten(2).any(-1), logits.sigmoid()\n"
        "    cost = torch.where(target, -(1 - p) ** 2 * p.log() / 4, -3 * p**2 * (1 - p).log() / 4)\n"
        "    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)\n"
        "    return cost.mean((2, 3))[present].mean(), dice[present].mean()",
    },
    A3: {
        "harmonic_mean": "def harmonic_mean(seen, unseen):\n    return 2 * seen * unseen / (seen + unseen)",
        "training_labels": "def training_labels(labels, unseen, classes):\n"
        "    return torch.where(torch.isin(labels, torch.tensor(unseen)), 255, labels)",
        "my_settings": "my_settings = {'steps': 1, 'batch_size': 1}",
    },
}
WRONG = {
    A1: {
        "word_map": "def word_map(tokens, word, grid):\n    return tokens @ word",
        "auroc": "def auroc(scores, is_class):\n    return 0.5",
        "mean_over_classes": "def mean_over_classes(values, class_index, classes):\n    return values.mean()",
        "debiased_cka": "def debiased_cka(x, y):\n    return (x @ x.T * (y @ y.T)).sum()",
        "held_out": "def held_out(picture_of, share, seed):\n    return torch.rand(len(picture_of)) < share",
        "modality_gap": "def modality_gap(image, text):\n    return image.mean(0) - text.mean(0)",
        "auroc_by_block": "def auroc_by_block(visual, images, labels, text):\n    return [0.5] * 12",
    },
    A2: {
        "learning_rate": "def learning_rate(step, steps, peak, warmup):\n    return peak",
        "run_prompted": "def run_prompted(blocks, tokens, prompts):\n    return tokens",
        "attend": "def attend(queries, keys, values, heads, is_patch):\n"
        "    return F.scaled_dot_product_attention(queries, keys, values)",
        "mask_loss": "def mask_loss(logits, labels):\n    return F.cross_entropy(logits, labels, ignore_index=255)",
        "train_steps": "def train_steps(model, batches, loss_of, optimiser_of, rates, clip):\n"
        "    return [0.0] * len(batches)",
    },
    A3: {
        "harmonic_mean": "def harmonic_mean(seen, unseen):\n    return (seen + unseen) / 2",
        "seen_unseen_scores": "def seen_unseen_scores(counts, unseen):\n    return counts.diag() / counts.sum(1)",
        "training_labels": "def training_labels(labels, unseen, classes):\n    return labels",
        "best_offset": "def best_offset(scores, labels, seen, offsets):\n    return 0.1, 0.9",
        "my_settings": "my_settings = {'steps': 5000, 'batch_size': 16, 'transductive': True}",
    },
}
Spoil = Callable[[NotebookNode], None]


def cells_of(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The answer, test and given cells by their grade id."""
    marked = [cell for cell in notebook.cells if cell.metadata.get("nbgrader")]
    return {cell.metadata.nbgrader["grade_id"]: cell for cell in marked}


def filled(released: NotebookNode, source: NotebookNode, answers: dict[str, str]) -> NotebookNode:
    """The released notebook with the source's solutions, or with `answers` where these hold one."""
    notebook, solved = copy.deepcopy(released), cells_of(source)
    for name, cell in cells_of(notebook).items():
        if cell.metadata.nbgrader["solution"]:
            cell.source = answers.get(name) or re.sub(r" *### (BEGIN|END) SOLUTION\n?", "", solved[name].source)
    return notebook


def before(name: str, text: str) -> Spoil:
    """Puts lines at the start of an answer."""

    def spoil(notebook: NotebookNode) -> None:
        cell = cells_of(notebook)[name]
        cell.source = f"{text}\n{cell.source}"

    return spoil


def without(*names: str) -> Spoil:
    """Deletes cells."""

    def spoil(notebook: NotebookNode) -> None:
        lost = {id(cell) for name, cell in cells_of(notebook).items() if name in names}
        notebook.cells = [cell for cell in notebook.cells if id(cell) not in lost]

    return spoil


def twice(notebook: NotebookNode) -> None:
    """An answer stands twice, marks and all, the first one wrong; so does a test; one copy has lost its marks, one has
    those of another assignment."""
    copies = (
        ("run_prompted", lambda cell: cell.update(source=WRONG[A2]["run_prompted"])),
        ("test_attend", lambda cell: None),
        ("mask_loss", lambda cell: cell.metadata.clear()),
        ("train_steps", lambda cell: cell.metadata.nbgrader.update(grade_id="word_map")),
    )
    for name, change in copies:
        cell = cells_of(notebook)[name]
        copied = copy.deepcopy(cell)
        copied["id"] = f"copy-of-{name.replace('_', '-')}"
        change(copied)
        notebook.cells.insert(notebook.cells.index(cell), copied)


def flood(notebook: NotebookNode) -> None:
    """Prints far too much: in a cell, from a function, and as a value."""
    before("run_prompted", "for line in range(150_000):\n    print(line, 'x' * 40)\nprint('y' * 20_000_000)")(notebook)
    cell = cells_of(notebook)["mask_loss"]
    cell.source = re.sub(r"(\"\"\"\n)", r"\1    print('z' * 1_000_000)\n", cell.source, count=1)
    cells_of(notebook)["attend"].source += "\n\n'w' * 10_000_000"


def rewritten_test(notebook: NotebookNode) -> None:
    """A wrong answer, and a test made to say otherwise, worth more."""
    cells_of(notebook)["learning_rate"].source = WRONG[A2]["learning_rate"]
    test = cells_of(notebook)["test_learning_rate"]
    test.source, test.metadata.nbgrader["points"] = "50.0", 50


ENDLESS = "def attend(queries, keys, values, heads, is_patch):\n    while True:\n        pass"

# submission -> assignment -> (answers instead of the solutions; None: the released notebook as it is; what spoils it)
SUBMISSIONS: dict[str, dict[str, tuple[dict[str, str] | None, Spoil | None]]] = {
    "right": {name: ({}, None) for name in (A1, A2, A3)},
    "partly_right": {name: (PARTLY[name], None) for name in (A1, A2, A3)},
    "wrong": {name: (WRONG[name], None) for name in (A1, A2, A3)},
    "empty": {name: (None, None) for name in (A1, A2, A3)},
    "syntax_error": {A2: ({}, before("mask_loss", "def ("))},
    "endless_loop_in_cell": {A2: ({}, before("run_prompted", "while True:\n    pass"))},
    "endless_loop_in_function": {A2: ({"attend": ENDLESS}, None)},
    "deleted_answer": {A2: ({}, without("attend"))},
    "deleted_test": {A2: ({}, without("learning_rate", "test_learning_rate", "test_run_prompted", "test_train_steps"))},
    "duplicated_cells": {A2: ({}, twice)},
    "huge_output": {A2: ({}, flood)},
    "rewritten_test": {A2: ({}, rewritten_test)},
}


def write_submissions(course: Path, folder: Path) -> None:
    """Every submission as `folder/ASSIGNMENT/SUBMISSION/ASSIGNMENT.ipynb`, out of the course's source and release."""
    for submission, assignments in SUBMISSIONS.items():
        for name, (answers, spoil) in assignments.items():
            source, released = (
                nbformat.read(course / step / name / f"{name}.ipynb", as_version=4) for step in ("source", "release")
            )
            notebook = released if answers is None else filled(released, source, answers)
            if spoil is not None:
                spoil(notebook)
            path = folder / name / submission / f"{name}.ipynb"
            path.parent.mkdir(parents=True)
            nbformat.write(notebook, path)
