"""A client's own cases: what it trains on, and what judges its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import nn

from flames.config import RunConfig
from flames.data.batches import training_batches
from flames.data.blocks import Blocks, block_batches, load_blocks
from flames.data.slices import Slices, load_slices
from flames.data.store import SiteStore, Split
from flames.inference.predict import validate
from flames.inference.predict_volumes import validate_blocks
from flames.inference.validation import Validation
from flames.models.precision import Precision
from flames.training.local import Batches


class SiteCases:
    """The cases of one store, or of several of one modality when sites are pooled.

    Slices where a modality has no plan, else blocks of volumes; they are opened when asked for.
    """

    def __init__(self, stores: Sequence[SiteStore], config: RunConfig) -> None:
        """Open nothing yet."""
        self.stores = tuple(stores)
        self.modality = stores[0].modality
        self.plan = config.plan_for(self.modality)
        self._config = config

    @cached_property
    def training(self) -> int:
        """Return the number of training cases."""
        return sum(len(store.split("train")) for store in self.stores)

    @cached_property
    def validation(self) -> int:
        """Return the number of validation cases."""
        return sum(len(store.split("val")) for store in self.stores)

    def batches(self, seed: int) -> Batches:
        """Return training batches without end, equal for equal seeds.

        Raises:
            FlamesError: There is nothing to train on.
        """
        data = self._config.data
        if self.plan is not None:
            return block_batches(
                self._blocks("train"),
                self.plan,
                modality=self.modality,
                tumour_fraction=data.tumour_fraction,
                augmented=data.augment,
                seed=seed,
            )
        return training_batches(
            self._slices("train"),
            modality=self.modality,
            batch_size=self._config.training.batch_size,
            tumour_fraction=data.tumour_fraction,
            augmented=data.augment,
            seed=seed,
        )

    def judge(self, network: nn.Module, precision: Precision) -> Validation:
        """Return how good a network is on validation cases."""
        if self.plan is not None:
            return validate_blocks(network, self._blocks("val"), self.plan, precision=precision)
        return validate(
            network,
            self._slices("val"),
            at_most=self._config.training.validation_images,
            precision=precision,
            batch_size=self._config.evaluation.batch_size,
        )

    def _slices(self, split: Split) -> list[Slices]:
        size = self._config.data.image_size
        return [load_slices(store, split, size) for store in self.stores]

    def _blocks(self, split: Split) -> list[Blocks]:
        assert self.plan is not None
        return [load_blocks(store, split, self.plan) for store in self.stores]
