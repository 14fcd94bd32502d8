"""Pruning neural networks at initialization: the package of the book of that name.

The way through it: data, model and batches give scores; scores give a mask; a mask is trained.
"""

from pai_lite.ablations import reinitialize, shuffle
from pai_lite.analysis import (
    emptied_units,
    kept_saliency,
    layer_totals,
    ntk,
    ntk_spectrum,
    squared_gradient_norm,
    unit_sparsity,
)
from pai_lite.cells import Cell, Experiment
from pai_lite.criteria import (
    grad_norm,
    grasp,
    grasp_abs,
    magnitude,
    prospr,
    prospr_first_order,
    random,
    snip,
    synflow,
)
from pai_lite.data import Data, Split, load_data
from pai_lite.downloads import DownloadError
from pai_lite.ensemble import fit_each, fit_many
from pai_lite.evaluation import accuracy
from pai_lite.exercises import EXERCISES, QUESTIONS, check
from pai_lite.gradients import hessian_gradient_product, mean_gradient
from pai_lite.grid import Grid, read_grid, run_grid
from pai_lite.later import Ticket, prune_later
from pai_lite.masks import LayerCollapseWarning, Mask, copy_model, prunable_parameters
from pai_lite.meta_gradients import first_order_gradient, meta_gradient, unrolled_meta_gradient
from pai_lite.methods import METHODS, Method
from pai_lite.models import MODELS, build_model
from pai_lite.paper_recipes import RECIPES
from pai_lite.paths import effective_mask, path_norm
from pai_lite.plots import plot_accuracy, plot_layer_density
from pai_lite.pruning import Step, prune, prune_steps
from pai_lite.recipes import Recipe, Setting, setting
from pai_lite.report import compare_pairs, summarize
from pai_lite.results import measured, read_results
from pai_lite.schedules import schedule_counts
from pai_lite.scores import (
    Scores,
    erk_counts,
    invert,
    keep_top,
    keep_top_per_layer,
    uniform_counts,
)
from pai_lite.shrinking import Cost, compare, cost, shrink
from pai_lite.streams import Stream, stream_batches
from pai_lite.structured import ChannelMask, prune_channels, score_units
from pai_lite.sweep import sweep
from pai_lite.training import Run, fit
from pai_lite.units import Units, find_units
from pai_lite.widgets import Explorer, explorer

__all__ = [
    "EXERCISES",
    "METHODS",
    "MODELS",
    "QUESTIONS",
    "RECIPES",
    "Cell",
    "ChannelMask",
    "Cost",
    "Data",
    "DownloadError",
    "Experiment",
    "Explorer",
    "Grid",
    "LayerCollapseWarning",
    "Mask",
    "Method",
    "Recipe",
    "Run",
    "Scores",
    "Setting",
    "Split",
    "Step",
    "Stream",
    "Ticket",
    "Units",
    "accuracy",
    "build_model",
    "check",
    "compare",
    "compare_pairs",
    "copy_model",
    "cost",
    "effective_mask",
    "emptied_units",
    "erk_counts",
    "explorer",
    "find_units",
    "first_order_gradient",
    "fit",
    "fit_each",
    "fit_many",
    "grad_norm",
    "grasp",
    "grasp_abs",
    "hessian_gradient_product",
    "invert",
    "keep_top",
    "keep_top_per_layer",
    "kept_saliency",
    "layer_totals",
    "load_data",
    "magnitude",
    "mean_gradient",
    "measured",
    "meta_gradient",
    "ntk",
    "ntk_spectrum",
    "path_norm",
    "plot_accuracy",
    "plot_layer_density",
    "prospr",
    "prospr_first_order",
    "prunable_parameters",
    "prune",
    "prune_channels",
    "prune_later",
    "prune_steps",
    "random",
    "read_grid",
    "read_results",
    "reinitialize",
    "run_grid",
    "schedule_counts",
    "score_units",
    "setting",
    "shrink",
    "shuffle",
    "snip",
    "squared_gradient_norm",
    "stream_batches",
    "summarize",
    "sweep",
    "synflow",
    "uniform_counts",
    "unit_sparsity",
    "unrolled_meta_gradient",
]
