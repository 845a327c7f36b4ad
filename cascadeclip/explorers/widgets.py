"""Explorers for notebooks: layers, words, the cascade's weights, surgery. Each is a thin view over pure functions.

Make one as the last value of a cell: `LayerScrubber()`, `WordExplorer()`, `CascadeExplorer()` or `SurgeryBench()`. They
show the mini world unless told otherwise; the functions they draw with are in `compute`, `surgery` and `draw`.
"""

from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Any

import ipywidgets
import numpy as np
import torch

from cascadeclip.analysis.dense.last_block import ATTENTIONS, Surgery, repair_outliers
from cascadeclip.analysis.dense.registry import METHODS, from_trunk
from cascadeclip.analysis.dense.segment import SCALE
from cascadeclip.analysis.dense.trunk import Trunk, check_blocks
from cascadeclip.analysis.pictures import Picture, scene_pictures, to_batch
from cascadeclip.clip.load import Clip, load_clip
from cascadeclip.data.emojiscenes import CAPTIONS, CLASSES
from cascadeclip.data.words import check_names, positions_written
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import sweep_offsets
from cascadeclip.explorers import compute, draw
from cascadeclip.explorers.base import Explorer, in_view, words_field
from cascadeclip.explorers.canvas import Drawing
from cascadeclip.explorers.surgery import bench_scores, lay_out
from cascadeclip.model.cascade import nga_weights
from cascadeclip.segmenter import Segmenter, load

BY_HAND = "surgery by hand"
OFFSETS = tuple(np.linspace(0, 0.5, 11).round(2).tolist())
STEP, SIGMA = 0.01, 1.0  # of the cascade's sliders; where sigma stands at the start


class LayerScrubber(Explorer):
    """Layer scrubber: a patch and a word at every block of CLIP's image tower.

    Click a patch in any map, below also to choose its block; the sliders do the same.

    Args:
        clip: Mini-CLIP if None.
        pictures: scenes of the mini world if None; the colours are fitted on the first 16.
        templates: sentences that the word is put into.
    """

    def __init__(
        self,
        clip: Clip | None = None,
        pictures: Sequence[Picture] | None = None,
        *,
        templates: Sequence[str] = CAPTIONS,
    ):
        clip, pictures = clip or load_clip(), pictures or scene_pictures()
        self.colours = compute.fit_colours(clip.visual, [picture.image for picture in pictures[:16]])
        self._layers = lru_cache(2)(lambda picture: compute.read_layers(clip.visual, picture.image))
        self._text = lru_cache(64)(lambda word: clip.class_embeddings([word], templates)[0])
        self.words, self.blocks = words_field("word"), clip.tower.layers
        self.block = ipywidgets.IntSlider(clip.tower.layers, 1, clip.tower.layers, description="block")
        rows, columns = clip.visual.grid_size
        self.row = ipywidgets.IntSlider((rows + 1) // 2, 1, rows, description="row")
        self.column = ipywidgets.IntSlider((columns + 1) // 2, 1, columns, description="column")
        super().__init__(pictures, [[self.words], [self.block, self.row, self.column]], clickable=True)

    def picture_changed(self) -> None:
        picture = self.chooser.value
        self.row.max, self.column.max = self._layers(picture).grid
        if picture.words:
            self.words.value = picture.words[0]

    def clicked(self, x: float, y: float) -> None:
        place = draw.patch_at(x, y, self.blocks, self._layers(self.chooser.value).grid)
        if place is not None:
            with self.at_once():
                self.block.value = place[0] or self.block.value
                self.row.value, self.column.value = place[1] + 1, place[2] + 1

    def figure(self) -> Drawing:
        picture, place = self.chooser.value, (self.row.value - 1, self.column.value - 1)
        (word,) = check_names(compute.split_words(self.words.value, most=1))
        maps = compute.layer_maps(self._layers(picture), self.colours, self._text(word), *place)
        return draw.draw_layers(picture.image, maps, self.block.value, *place, word)


class WordExplorer(Explorer):
    """Word explorer: the mask of every word, stage by stage and summed.

    Args:
        segmenter: the shipped cascade if None, which has several stages to look at.
        pictures: scenes of the mini world if None.
        classes: what the pictures' labels are indices into.
    """

    def __init__(
        self,
        segmenter: Segmenter | None = None,
        pictures: Sequence[Picture] | None = None,
        classes: Sequence[str] = CLASSES,
    ):
        self.segmenter, self.classes = segmenter or load("mini/cascade"), tuple(classes)
        self._encoded = lru_cache(2)(lambda picture: compute.encode(self.segmenter.model, [picture.image]))
        self._logits = lru_cache(8)(self._read)
        self.words = words_field("words, separated by commas")
        self.words.layout.width = "36em"
        stages = self.segmenter.model.config.stages
        self.titles = [f"stage {s}\n{'+'.join(map(str, blocks))}" for s, blocks in enumerate(stages, 1)]
        names = [title.replace("\n", ": ") for title in self.titles]
        self.stages = [ipywidgets.Checkbox(True, description=name, indent=False) for name in names]
        beside = [("nothing", None), *((method, method) for method in METHODS)]
        self.beside = ipywidgets.Dropdown(options=beside, description="without training, beside it")
        super().__init__(pictures or scene_pictures(), [[self.words, self.beside], self.stages])

    def picture_changed(self) -> None:
        if self.chooser.value.words:
            self.words.value = ", ".join(self.chooser.value.words)

    def _read(self, picture: Picture, names: tuple[str, ...]) -> torch.Tensor:
        return compute.read_words(self.segmenter, self._encoded(picture), names)

    def figure(self) -> Drawing:
        picture, names = self.chooser.value, check_names(compute.split_words(self.words.value))
        on, logits = [stage.value for stage in self.stages], self._logits(picture, names)
        found = compute.word_masks(
            self.segmenter, picture, names, on, logits=logits, classes=self.classes, beside=self.beside.value
        )
        return draw.draw_words(picture.image, found, self.titles)


class CascadeExplorer(Explorer):
    """NGA and offset explorer: what the blocks' weights and the seen offset do to masks and scores.

    Args:
        segmenter: the shipped cascade if None; at least one of its stages must be aggregated by NGA.
        pictures: scenes of the mini world if None.
        classes: all class words, those that the pictures' labels are indices into; each pixel chooses among them.
        scored: on how many of the labelled pictures the scores are measured, every second pixel of each.
    """

    def __init__(
        self,
        segmenter: Segmenter | None = None,
        pictures: Sequence[Picture] | None = None,
        classes: Sequence[str] = CLASSES,
        *,
        scored: int = 8,
    ):
        self.segmenter, self.classes = segmenter or load("mini/cascade"), tuple(classes)
        model, pictures = self.segmenter.model, pictures or scene_pictures()
        self.trained = compute.trained_weights(model)
        if not self.trained:
            raise InputError(f"no stage of {model.config.stages} is aggregated by NGA: there are no weights to move")
        seen = positions_written(self.classes, self.segmenter.seen)
        self.unseen = [name for position, name in enumerate(self.classes) if position not in seen]
        self.text = self.segmenter.clip.class_embeddings(self.classes, self.segmenter.templates)
        self._labelled = tuple(picture for picture in pictures if picture.labels is not None)[:scored]
        self._encoded = lru_cache(4)(lambda those: compute.encode(model, [picture.image for picture in those]))
        self._stage = lru_cache(16)(self._read_stage)
        self._curves = lru_cache(16)(self._sweep)
        self._make_sliders()
        controls = [[self.offset, self.sigma, self.reset], self.weights]
        super().__init__(pictures, controls, setters=[self.sigma])

    def _make_sliders(self) -> None:
        plain = dict(step=STEP, readout_format=".2f")
        self.offset = ipywidgets.FloatSlider(self.segmenter.seen_offset, min=0, max=0.5, description="offset", **plain)
        self.sigma = ipywidgets.FloatSlider(SIGMA, min=0.2, max=4, description="weights from sigma", step=0.1)
        self.reset = ipywidgets.Button(description="as trained", tooltip="weights and offset as they were trained")
        stages, values = self.segmenter.model.config.stages, [v for of in self.trained.values() for v in of]
        ends = dict(min=min(0.0, *values), max=max(2.0, *values))
        self.weights = [
            ipywidgets.FloatSlider(value, description=f"block {block}", **ends, **plain)
            for stage, of in self.trained.items()
            for block, value in zip(stages[stage], of, strict=True)
        ]
        self.sigma.observe(self._take_sigma, "value")
        self.reset.on_click(self._take_trained)

    @in_view
    def _take_sigma(self, change: dict[str, Any]) -> None:
        with self.at_once():
            self._set_weights([w for of in self.trained.values() for w in nga_weights(len(of), change["new"]).tolist()])

    @in_view
    def _take_trained(self, _button: object) -> None:
        with self.at_once():
            self.offset.value, self.sigma.value = self.segmenter.seen_offset, SIGMA
            self._set_weights([w for of in self.trained.values() for w in of])

    def _set_weights(self, values: Sequence[float]) -> None:
        for slider, value in zip(self.weights, values, strict=True):
            slider.value = value

    def _read_stage(self, pictures: tuple[Picture, ...], stage: int, weights: tuple[float, ...] | None) -> torch.Tensor:
        return compute.stage_logits(self.segmenter.model, self._encoded(pictures), self.text, stage, weights)

    def _logits(self, pictures: tuple[Picture, ...], weights: tuple[tuple[float, ...], ...]) -> torch.Tensor:
        """The cascade's mask logits (n, C, h, w) under certain weights, one tuple per NGA stage."""
        given = dict(zip(self.trained, weights, strict=True))
        stages = range(len(self.segmenter.model.config.stages))
        return reduce(torch.add, (self._stage(pictures, stage, given.get(stage)) for stage in stages))

    def _sweep(self, weights: tuple[tuple[float, ...], ...]) -> dict[str, list[float]]:
        """Scores over the offsets."""
        labels = compute.every_second_pixel(self._labelled)
        unseen = [self.classes.index(name) for name in self.unseen]
        readout = compute.read_out_logits(self._logits(self._labelled, weights), labels, unseen)
        sweep = sweep_offsets(readout, self.classes, self.unseen, OFFSETS)
        return {key: [getattr(scores, key) for scores in sweep] for key in draw.LINES}

    def _segmentation(self, picture: Picture, weights: tuple[tuple[float, ...], ...], offset: float) -> np.ndarray:
        seen = [position for position, name in enumerate(self.classes) if name not in self.unseen]
        size = compute.shown_size(picture.image)
        return compute.probabilities(self._logits((picture,), weights), size, seen, offset)[0].argmax(0).numpy()

    def figure(self) -> Drawing:
        picture, offset, size = self.chooser.value, self.offset.value, compute.shown_size(self.chooser.value.image)
        sliders = iter(self.weights)
        now = tuple(tuple(_weight_at(next(sliders), value) for value in of) for of in self.trained.values())
        maps = {"truth": compute.truth_among(picture, self.classes, self.classes, size)}
        if picture.labels is None:
            del maps["truth"]
        then = tuple(map(tuple, self.trained.values()))
        maps["as trained"] = self._segmentation(picture, then, self.segmenter.seen_offset)
        maps["now"] = self._segmentation(picture, now, offset)
        both = {"as trained": then, "now": now}
        weights = {title: dict(zip(self.trained, of, strict=True)) for title, of in both.items()}
        curves = {title: self._curves(of) for title, of in both.items()} if self._labelled else None
        return draw.draw_cascade(
            picture.image, maps, self.classes, self.unseen, weights, self.segmenter.model.config.stages, offset, curves,
            OFFSETS,
        )  # fmt: skip


def _weight_at(slider: ipywidgets.FloatSlider, trained: float) -> float:
    """What a slider stands for: a browser rounds to its steps, and the step nearest to a trained weight is that one."""
    return trained if abs(slider.value - trained) <= STEP / 2 else slider.value


class SurgeryBench(Explorer):
    """Surgery bench: CLIP's last block cut open by hand, or by a method, without training.

    Args:
        clip: Mini-CLIP if None.
        pictures: scenes of the mini world if None.
        classes: what the pictures' labels are indices into.
        scored: on how many of the labelled pictures the scores are measured; over patches, before any refinement.
        templates: sentences that the words are put into.
    """

    def __init__(
        self,
        clip: Clip | None = None,
        pictures: Sequence[Picture] | None = None,
        classes: Sequence[str] = CLASSES,
        *,
        scored: int = 12,
        templates: Sequence[str] = CAPTIONS,
    ):
        self.visual, pictures = (clip := clip or load_clip()).visual, pictures or scene_pictures()
        self._text = lru_cache(16)(lambda names: clip.class_embeddings(names, templates))
        self._trunk = lru_cache(4)(self._read)
        labelled = [picture for picture in pictures if picture.labels is not None][:scored]
        self.bench = lay_out(self.visual, labelled, self._text(tuple(classes))) if labelled else None
        self._scores = lru_cache(64)(self._score)
        super().__init__(pictures, self._make_controls(clip.tower.layers))

    def _make_controls(self, layers: int) -> list[list[ipywidgets.Widget]]:
        plain = dict(indent=False)
        self.words = words_field("words, separated by commas")
        self.words.layout.width = "36em"
        self.method = ipywidgets.Dropdown(options=[(BY_HAND, None), *((m, m) for m in METHODS)], description="method")
        self.attention = ipywidgets.ToggleButtons(options=ATTENTIONS, description="attention")
        self.residual = ipywidgets.Checkbox(True, description="residual", **plain)
        self.feed_forward = ipywidgets.Checkbox(True, description="feed-forward", **plain)
        self.repair = ipywidgets.Checkbox(False, description="repair patches longer than", **plain)
        self.factor = ipywidgets.FloatSlider(1.3, min=1.05, max=4, step=0.05, description="times the median")
        self.blocks = [
            ipywidgets.Checkbox(b == layers, description=f"block {b}", **plain) for b in range(1, layers + 1)
        ]
        self.pamr = ipywidgets.IntSlider(0, 0, 20, description="refined along edges, times")
        self.background = ipywidgets.FloatSlider(0, min=0, max=1, step=0.05, description="none of them below")
        self.by_hand = [self.attention, self.residual, self.feed_forward, self.repair, self.factor]
        self.method.observe(self._method_chosen, "value")
        return [
            [self.method, self.words],
            [self.attention],
            self.by_hand[1:],
            self.blocks,
            [self.pamr, self.background],
        ]

    def picture_changed(self) -> None:
        if self.chooser.value.words:
            self.words.value = ", ".join(self.chooser.value.words)

    def _read(self, picture: Picture) -> tuple[torch.Tensor, Trunk]:
        batch = to_batch(picture.image, self.visual)
        return batch, Trunk(self.visual, batch)

    def _score(self, method: str | Surgery, blocks: tuple[int, ...] | None) -> dict[str, float]:
        return {} if self.bench is None else bench_scores(self.bench, method, blocks=blocks)

    def _method_chosen(self, change: dict[str, Any]) -> None:
        for one in self.by_hand:
            one.disabled = bool(change["new"])

    def surgery(self) -> Surgery:
        """What the controls by hand say."""
        factor = self.factor.value if self.repair.value else None
        return Surgery(self.attention.value, self.residual.value, self.feed_forward.value, factor)

    @torch.inference_mode()
    def figure(self) -> Drawing:
        picture, names = self.chooser.value, check_names(compute.split_words(self.words.value))
        (batch, trunk), text, repaired = self._trunk(picture), self._text(names), None
        blocks = check_blocks([b for b, box in enumerate(self.blocks, 1) if box.value], trunk.depth)
        method = self.method.value or self.surgery()
        cases = {"as CLIP is": (Surgery(), None), self.method.value or "after surgery": (method, blocks)}
        if self.repair.value and not self.method.value:
            tokens = trunk.before(max(blocks))
            repaired = (
                repair_outliers(tokens, trunk.grid, self.factor.value)[1][0].unflatten(0, trunk.grid).cpu().numpy()
            )
        scores = {name: self._scores(*case) for name, case in cases.items()} if self.bench else None
        maps = {}
        for name, (how, those) in cases.items():
            similarity = (from_trunk(trunk, how, blocks=those) @ text.to(batch).T).transpose(1, 2)
            maps[name] = similarity.unflatten(2, trunk.grid).float()
        if self.pamr.value:
            maps = {name: compute.refined(batch, found, picture.image, self.pamr.value) for name, found in maps.items()}
        grey, limit = None, self.background.value
        if limit:
            grey = {name: (SCALE * m).softmax(1).amax(1)[0].cpu().numpy() < limit for name, m in maps.items()}
        maps = {name: found[0].cpu().numpy() for name, found in maps.items()}
        return draw.draw_surgery(picture.image, maps, names, scores, repaired, grey)
