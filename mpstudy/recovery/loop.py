"""One LoRA training: its optimiser steps on Accelerate, its progress, and the file from which it goes on.

Nothing random is kept from step to step: the data order comes from the seed and the epoch, the dropout from the seed,
the step and the process. What must be stored to go on with the same bits is then the weights, the optimiser's state and
the number of steps.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from pytorch_optimizer import AdamP
from transformers import get_scheduler

from ..errors import StudyError
from ..store import tensorfile
from ..store.files import replacing
from .examples import Example, loss_sum, packed, padded, silenced, split, targets
from .recipe import Recipe

OPTIMISERS = {"adamw": torch.optim.AdamW, "adamp": AdamP}


@dataclass
class History:
    """What a training has done: a row a step, and the weights with the lowest validation loss so far."""

    rows: list[dict] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def best_step(self) -> int:
        """The step after which the validation loss was lowest; before the first step there is nothing to keep."""
        measured = [row for row in self.rows if "validation_loss" in row and row["step"]]
        return min(measured, key=lambda row: row["validation_loss"])["step"]

    def add(self, row: dict, weights) -> None:
        """Append a row. ``weights()`` gives the weights after it. A loss that is not finite is a StudyError."""
        for name in {"loss", "validation_loss"} & row.keys():
            if not math.isfinite(row[name]):
                raise StudyError(f"the recovery {name} is {row[name]} at step {row['step']}; a lower lr may help")
        self.rows.append(row)
        if row["step"] and "validation_loss" in row and self.best_step == row["step"]:
            self.best = weights()


def accelerator() -> Accelerator:
    """Accelerate as the launcher has set it up: processes, device, precision, sharding."""
    return Accelerator(cpu=not torch.cuda.is_available())


class Loop:
    """The optimiser steps of a PEFT model, in one process or spread over all that Accelerate finds."""

    def __init__(self, model, recipe: Recipe, steps: int, seed: int):
        self.recipe, self.seed = recipe, seed
        self.accelerator = accelerator()
        if recipe.checkpointing:
            model.activation_checkpointing_enable()
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = OPTIMISERS[recipe.optimiser](trainable, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.schedule = get_scheduler(recipe.schedule, optimiser, recipe.warmup_steps, steps)
        self.model, self.optimiser = self.accelerator.prepare(model, optimiser)

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def is_sharded(self) -> bool:
        """Whether no process has all of the optimiser's state, so that :func:`save` cannot keep the training."""
        return self.accelerator.distributed_type == DistributedType.FSDP

    def order(self, count: int) -> list[list[int]]:
        """The examples of every step, by index: each epoch a new permutation, the last step of one may be smaller."""
        steps = []
        for epoch in range(self.recipe.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(count).tolist()
            steps += [order[i : i + self.recipe.batch_size] for i in range(0, count, self.recipe.batch_size)]
        return steps

    def step(self, number: int, examples: list[Example]) -> float:
        """One step on the mean loss over the targets of ``examples``, and that loss, whatever part of them a backward
        pass or a process holds.
        """
        self.model.train()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(int(np.random.SeedSequence((self.seed, number, rank)).generate_state(1)[0]))
        mine, total = self._share(self._batches(examples)), torch.zeros((), device=self.accelerator.device)
        for index, batch in enumerate(mine):
            last = index == len(mine) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                # Gradients are averaged over the processes, so each gives world times its part of the mean.
                loss = self._loss(batch) * world / targets(examples)
                self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        return self.accelerator.reduce(total, "mean").item()

    @torch.no_grad()
    def mean_loss(self, examples: list[Example]) -> float:
        """Mean loss in nats over the targets of ``examples``; every process computes all of it."""
        self.model.eval()
        return sum(self._loss(batch).item() for batch in self._batches(examples)) / targets(examples)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the LoRA weights on the CPU by PEFT's names; every process must ask."""
        whole = self.accelerator.get_state_dict(self.model)
        lora = get_peft_model_state_dict(self.accelerator.unwrap_model(self.model), state_dict=whole)
        return {name: value.detach().cpu().clone() for name, value in lora.items()}

    def _loss(self, batch: dict) -> torch.Tensor:
        return loss_sum(self.model, batch, self.accelerator.device)

    def _batches(self, examples: list[Example]) -> list[dict]:
        recipe = self.recipe
        groups = split(examples, recipe.micro_batch_size, recipe.cutoff, recipe.packing)
        return [packed(group) if recipe.packing else padded([example for (example,) in group]) for group in groups]

    def _share(self, batches: list[dict]) -> list[dict]:
        """Every world-th batch. All processes get as many, since they pass their layers together: the last ones of a
        step may get a batch without targets.
        """
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        missing = -len(batches) % world
        return (batches + [silenced(batches[-1])] * missing)[rank::world]


def save(path: str | Path, key: dict, loop: Loop, history: History) -> None:
    """Keep a training in one safetensors file; ``key`` says which training it is. One that is sharded is
    not kept.
    """
    if loop.is_sharded:
        return
    weights = loop.weights()
    if not loop.is_main:
        return
    state = loop.optimiser.state_dict()
    tensors, plain = {}, {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    tensors |= {f"weights.{name}": value for name, value in weights.items()}
    tensors |= {f"best.{name}": value for name, value in history.best.items()}
    schedule = {name: value for name, value in loop.schedule.state_dict().items() if name != "lr_lambdas"}
    meta = {"key": key, "history": history.rows, "plain": plain}
    meta |= {"groups": state["param_groups"], "schedule": schedule}
    with replacing(path) as partial:
        tensorfile.save(partial, "training", tensors, meta)


def load(path: str | Path, key: dict, loop: Loop) -> History:
    """Bring ``loop`` to where :func:`save` left it. Raises :class:`StudyError` for the file of another training."""
    tensors, meta = tensorfile.load(path, "training")
    if different := [name for name in key if meta["key"].get(name) != key[name]]:
        raise StudyError(f"{path} is of a training with another {different[0]}; delete it to begin anew")
    parts = {"weights": {}, "best": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    set_peft_model_state_dict(loop.accelerator.unwrap_model(loop.model), parts["weights"])
    state = {}
    for name, value in (parts["optimiser"] | meta["plain"]).items():
        index, _, rest = name.partition(".")
        state.setdefault(int(index), {})[rest] = value
    loop.optimiser.load_state_dict({"state": state, "param_groups": meta["groups"]})
    loop.schedule.load_state_dict(meta["schedule"] | {"lr_lambdas": [None]})
    return History(meta["history"], parts["best"])
