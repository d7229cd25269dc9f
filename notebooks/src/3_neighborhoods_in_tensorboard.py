# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-lpd/keras-lpd/blob/main/notebooks/3_neighborhoods_in_tensorboard.ipynb)
#
# # Neighbourhoods in TensorBoard
#
# Which samples does the teacher take for neighbours, and does the student agree? Two
# callbacks write that down while it learns, and TensorBoard shows it. For readers
# without a kernel, the same is drawn here.

# %%
import importlib.util

if not importlib.util.find_spec("keras_lpd"):
    print("Installing keras-lpd ...")
    # %pip install -q "keras-lpd[examples,tensorboard] @ git+https://github.com/keras-lpd/keras-lpd"

# %%
import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from keras_lpd import LPDistiller
from keras_lpd.callbacks import EmbeddingProjector, NeighborhoodMetrics
from keras_lpd.datasets import load_arrays
from keras_lpd.metrics import nearest, neighbor_overlap
from keras_lpd.models import cnn_student, cnn_teacher

DATASET = os.environ.get("KERAS_LPD_DATASET", "digits")  # or "fashion_mnist"
EPOCHS = 15 if DATASET == "digits" else 5

data = load_arrays(DATASET)
x, y = data.x_train[:3000], data.y_train[:3000]
test = data.x_test[:2000], data.y_test[:2000]
shape = x.shape[1:]
plt.rcParams["figure.dpi"] = 80

keras.utils.set_random_seed(0)
teacher = cnn_teacher(shape)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(
    data.x_train[:10_000],
    data.y_train[:10_000],
    batch_size=64,
    epochs=12 if DATASET == "digits" else 3,
    verbose=0,
)
print(
    f"teacher: {teacher.evaluate(*test, verbose=0, return_dict=True)['accuracy']:.2%}"
)

# %% [markdown]
# ## Two callbacks
#
# - `NeighborhoodMetrics` adds to the logs of each epoch how well the neighbourhoods are
#   kept. It comes first in the list, for the others to use what it adds.
# - `EmbeddingProjector` writes features, predictions and thumbnails for the dashboards.
#
# Both work for a plain Keras model too, when they are given the teacher. So the student
# alone can be watched like the distilled one. Neither changes the training.

# %%
students, logs = {}, {}
for run in ("alone", "distilled"):
    keras.utils.set_random_seed(1)
    students[run] = student = cnn_student(shape)
    model = LPDistiller(teacher, student) if run == "distilled" else student
    model.compile("adam", loss, metrics=["accuracy"])
    history = model.fit(
        x,
        y,
        batch_size=32,
        epochs=EPOCHS,
        validation_data=test,
        callbacks=[
            NeighborhoodMetrics(test, k=10, teacher=teacher),
            keras.callbacks.TensorBoard(f"logs/{run}"),
            EmbeddingProjector(
                f"logs/{run}",
                test,
                every=5,
                class_names=data.class_names,
                teacher=teacher,
            ),
        ],
        verbose=0,
    )
    logs[run] = history.history

for name in logs["distilled"]:
    if name in logs["alone"]:
        values = [f"{run} {logs[run][name][-1]:.3f}" for run in logs]
        print(f"{name:<22} {', '.join(values)}")

# %% [markdown]
# ## TensorBoard
#
# Open the tab **Neighborhoods** (under "Inactive" if you don't see it) for what follows
# below, sample by sample; and **Projector** for the features as clouds of points with
# thumbnails. Outside a notebook: `tensorboard --logdir logs`. The README has [a picture
# of the dashboard](../docs/neighborhoods.png).

# %%
# %load_ext tensorboard

# %% tags=["skip-execution"]
# %tensorboard --logdir logs

# %% [markdown]
# ## The same without a kernel: over the epochs
#
# Left, `val_neighbor_overlap`: of the ten nearest in the teacher's features, the share
# that is among the ten nearest in the student's. Look whether it still rises at the
# end, and at the gap between the curves. Middle, `val_trustworthiness`: near 1 if the
# student's neighbours are no strangers in the teacher's features. Right,
# `val_knn_accuracy`: how often a vote among the ten nearest names the right class.

# %%
shown = ["val_neighbor_overlap", "val_trustworthiness", "val_knn_accuracy"]
colours = {"alone": "#d98032", "distilled": "#2f7ebc"}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for axis, name in zip(axes, shown):
    for run, colour in colours.items():
        axis.plot(range(1, EPOCHS + 1), logs[run][name], color=colour, label=run)
    axis.set(title=name, xlabel="epoch")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## One sample and its neighbours
#
# The features of all models on the test set, and who is near whom in each:

# %%
logging.getLogger("keras_lpd").setLevel(logging.WARNING)  # It has said all that.

extractors = {"teacher": LPDistiller(teacher, student).feature_extractor("teacher")}
for run in students:
    watched = LPDistiller(teacher, students[run])
    extractors[run] = watched.feature_extractor("student")
features = {
    name: np.asarray(extract(test[0], training=False)["features"])
    for name, extract in extractors.items()
}
near = {name: nearest(one, k=10)[1] for name, one in features.items()}
kept = {
    run: neighbor_overlap(features["teacher"], features[run], k=10, reduction=None)
    for run in students
}
print({run: f"{shares.mean():.0%} kept" for run, shares in kept.items()})


# %%
def show(sample):
    """A row for each model: the sample, then its nearest, nearest first."""
    _, axes = plt.subplots(3, 11, figsize=(11, 3.4), layout="constrained")
    for row, (name, indices) in zip(axes, near.items()):
        for axis, index in zip(row, [sample, *indices[sample]]):
            axis.imshow(test[0][index].squeeze(), cmap="gray_r")
            axis.set(xticks=[], yticks=[])
            axis.set_title(data.class_names[test[1][index]], fontsize=9)
            shared = name != "teacher" and index in near["teacher"][sample]
            axis.spines[:].set(color="#2a9d43" if shared else "#cccccc")
            axis.spines[:].set_linewidth(3 if shared else 1)
        row[0].spines[:].set(color="black", linewidth=2)
        row[0].set_ylabel(name, fontsize=10)
    plt.show()


typical = np.argsort(kept["distilled"])[len(test[0]) // 2]
show(typical)

# %% [markdown]
# In the first column is the sample itself, then come its ten nearest: in the teacher's
# features, the lone student's and the distilled one's. A green frame marks those that
# are the teacher's as well. This sample is a typical one, the median of the distilled
# student. Below is the one whose neighbourhood it kept worst. Look at the labels over
# the pictures: are the neighbours of another class, or only other ones of the same?

# %%
show(np.argmin(kept["distilled"]))

# %% [markdown]
# ## Where neighbours get lost
#
# All test images, brought down to two dimensions by PCA as on the dashboard's maps. In
# the third picture dark dots are those that lost their neighbours: are they anywhere,
# or where classes touch?

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
for axis, name in zip(axes, ("teacher", "distilled", "distilled")):
    by_share = axis is axes[2]
    flat = PCA(2, random_state=0).fit_transform(features[name])
    dots = axis.scatter(
        *flat.T,
        c=kept["distilled"] if by_share else test[1],
        cmap="viridis" if by_share else "tab10",
        s=8,
        linewidths=0,
    )
    axis.set_title(f"{name}, by {'share kept' if by_share else 'class'}")
    axis.set(xticks=[], yticks=[])
figure.colorbar(dots, ax=axes[2])
plt.show()

# %% [markdown]
# By class, with the share kept by either student:

# %%
for label, name in enumerate(data.class_names):
    shares = [f"{run} {kept[run][test[1] == label].mean():.0%}" for run in kept]
    print(f"{name:<12} {', '.join(shares)}")
