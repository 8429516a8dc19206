"""A store as a picture: vectors on their two directions of largest variance, coloured by what the table says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from kar_aug._helpers.foreign import harmless
from kar_aug.cache import VectorStore
from kar_aug.cache.vectors.index import EntityId
from kar_aug.cache.vectors.reduction import fit_pca, project

_MOST = 2000
_COLOURS = 8


def vector_map(store: VectorStore, label: Mapping[EntityId, str]) -> Any:
    """A Matplotlib figure of up to 2,000 vectors.

    Args:
        label: per id what colours it, as "Comedy"; the commonest eight have colours of their own. Entities without
            one, or with another, are grey.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    ids = store.ids
    chosen = [ids[i] for i in np.sort(np.random.default_rng(0).permutation(len(ids))[:_MOST])]
    vectors = store.gather(chosen).astype(np.float32)
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    if len(chosen) > 2 and vectors.shape[1] > 1:
        places = project(vectors, fit_pca(vectors, 2))
        labels = np.asarray([label.get(id, "") for id in chosen])
        common = [name for name, _ in Counter(name for name in labels.tolist() if name).most_common(_COLOURS)]
        rest = ~np.isin(labels, common)
        axes.scatter(places[rest, 0], places[rest, 1], s=6, color="#bbbbbb", label="other" if rest.any() else None)
        for number, name in enumerate(common):
            mine = places[labels == name]
            axes.scatter(mine[:, 0], mine[:, 1], s=8, color=colormaps["tab10"](number), alpha=0.7, label=harmless(name))
        legend = axes.legend(fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        for text in legend.get_texts():  # a category as it is: "$5" begins no formula
            text.set_parse_math(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure
