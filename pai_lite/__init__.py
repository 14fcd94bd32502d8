"""Pruning neural networks at initialization: the package of the book of that name.

The way through it: data, model and batches give scores; scores give a mask; a mask is trained.
"""

from pai_lite.criteria import grad_norm, grasp, grasp_abs, magnitude, random, snip, synflow
from pai_lite.data import Data, Split, load_data
from pai_lite.downloads import DownloadError
from pai_lite.exercises import EXERCISES, check
from pai_lite.gradients import hessian_gradient_product, mean_gradient
from pai_lite.masks import LayerCollapseWarning, Mask, copy_model, prunable_parameters
from pai_lite.models import MODELS, build_model
from pai_lite.plots import plot_accuracy, plot_layer_density
from pai_lite.pruning import METHODS, Method, prune, shuffle
from pai_lite.recipes import Recipe, Setting, setting
from pai_lite.schedules import schedule_counts
from pai_lite.scores import Scores, erk_counts, keep_top, keep_top_per_layer, uniform_counts
from pai_lite.sweep import sweep
from pai_lite.training import Run, accuracy, fit
from pai_lite.widgets import Explorer, explorer

__all__ = [
    "EXERCISES",
    "METHODS",
    "MODELS",
    "Data",
    "DownloadError",
    "Explorer",
    "LayerCollapseWarning",
    "Mask",
    "Method",
    "Recipe",
    "Run",
    "Scores",
    "Setting",
    "Split",
    "accuracy",
    "build_model",
    "check",
    "copy_model",
    "erk_counts",
    "explorer",
    "fit",
    "grad_norm",
    "grasp",
    "grasp_abs",
    "hessian_gradient_product",
    "keep_top",
    "keep_top_per_layer",
    "load_data",
    "magnitude",
    "mean_gradient",
    "plot_accuracy",
    "plot_layer_density",
    "prunable_parameters",
    "prune",
    "random",
    "schedule_counts",
    "setting",
    "shuffle",
    "snip",
    "sweep",
    "synflow",
    "uniform_counts",
]
