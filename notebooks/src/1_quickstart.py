# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-lpd/keras-lpd/blob/main/notebooks/1_quickstart.ipynb)
#
# # Distil in ten lines
#
# You have a large, trained Keras model, the *teacher*, and want a small one, the
# *student*. Here the student learns from your labels, and also keeps close together
# what the teacher takes for neighbours. One class does that, `LPDistiller`; what you
# get back is a plain Keras model.
#
# The handwritten digits that come with scikit-learn will do, and a minute or two on two
# cores. Set `KERAS_LPD_DATASET=fashion_mnist` for clothes instead.

# %%
import importlib.util

if not importlib.util.find_spec("keras_lpd"):
    print("Installing keras-lpd ...")
    # %pip install -q "keras-lpd[examples] @ git+https://github.com/keras-lpd/keras-lpd"

# %%
import logging
import os

# %matplotlib inline
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

from keras_lpd import LPDistiller
from keras_lpd.datasets import load_arrays
from keras_lpd.models import cnn_student, cnn_teacher
from keras_lpd.report import compare

DATASET = os.environ.get("KERAS_LPD_DATASET", "digits")  # or "fashion_mnist"
SEEDS, EPOCHS = (3, 30) if DATASET == "digits" else (1, 8)

data = load_arrays(DATASET)
x, y = data.x_train[:3000], data.y_train[:3000]
test = data.x_test, data.y_test
shape = x.shape[1:]
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
plt.rcParams["figure.dpi"] = 80
print(f"{len(x):,} images of {shape} to learn from, {len(test[0]):,} for testing")

# %% [markdown]
# ## A teacher
#
# Yours is trained already. Here we have to do that first; any Keras model with a
# classifier at its end serves, or a backbone without one.

# %%
keras.utils.set_random_seed(0)
teacher = cnn_teacher(shape)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(
    data.x_train[:10_000],
    data.y_train[:10_000],
    batch_size=64,
    epochs=20 if DATASET == "digits" else 3,
    verbose=0,
)
print(f"The teacher has {teacher.count_params():,} parameters.")

# %% [markdown]
# ## The ten lines
#
# `LPDistiller` finds the layers whose features are compared by itself, and says which.
# Without `compile`, it also chooses optimiser, loss and metric.

# %%
keras.utils.set_random_seed(0)
student = cnn_student(shape)
distiller = LPDistiller(teacher, student)
history = distiller.fit(x, y, epochs=EPOCHS, validation_data=test, verbose=0)
student.save("student.keras")
print(f"The student has {student.count_params():,} parameters.")

# %% [markdown]
# The logs hold the student's own loss, that of each distillation loss, and
# `feature_spread`: how far the student's features lie from their mean. If that falls
# towards 0, the pull is too strong (notebook 2 shows it).

# %%
for name, values in history.history.items():
    print(f"{name:<28} {values[0]:8.3f}  ->  {values[-1]:8.3f}")

# %% [markdown]
# ## Is it better than the same student alone?
#
# The same student, the same start, the same optimiser, without the teacher.

# %%
keras.utils.set_random_seed(0)
alone = cnn_student(shape)
alone.compile("adam", loss)
alone.fit(x, y, epochs=EPOCHS, verbose=0)

models = {"teacher": teacher, "student alone": alone, "distilled": distiller}
comparison = compare(models, test)
comparison

# %% [markdown]
# Look at two columns. *Accuracy* is what you came for. *Neighbour overlap* is how that
# was done: of each test image's ten nearest in the teacher's features, how many are
# among the ten nearest in the student's.

# %%
comparison.plot()

# %% [markdown]
# One training tells little: luck alone can make a difference of a point. So train
# several of each kind, under the same seeds.

# %%
logging.getLogger("keras_lpd").setLevel(logging.WARNING)  # It has said all that.


def accuracy(model):
    batches = np.array_split(test[0], -(-len(test[0]) // 500))
    logits = np.concatenate([model(batch, training=False) for batch in batches])
    return 100 * np.mean(logits.argmax(axis=1) == test[1])


scores = {"student alone": [accuracy(alone)], "distilled": [accuracy(student)]}
for seed in range(1, SEEDS):
    for name in scores:
        keras.utils.set_random_seed(seed)
        another = cnn_student(shape)
        model = LPDistiller(teacher, another) if name == "distilled" else another
        model.compile("adam", loss)
        model.fit(x, y, epochs=EPOCHS, verbose=0)
        scores[name].append(accuracy(another))

print(f"{'teacher':<14} {accuracy(teacher):.2f} %")
for name, values in scores.items():
    each = ", ".join(f"{value:.2f}" for value in values)
    print(f"{name:<14} {np.mean(values):.2f} %, of seeds {each}")

# %% [markdown]
# ## What the student sees
#
# Each picture shows the test set in the features of one model, brought down to two
# dimensions by t-SNE; a dot is an image, its colour the true class. Look at how clearly
# the classes lie apart, and for dots in the wrong cloud.

# %%
shown = slice(0, 1000)
extractors = {
    "teacher": distiller.feature_extractor("teacher"),
    "student alone": LPDistiller(teacher, alone).feature_extractor("student"),
    "distilled": distiller.feature_extractor("student"),
}
figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
for axis, (name, extract) in zip(axes, extractors.items()):
    features = np.asarray(extract(test[0][shown], training=False)["features"])
    flat = TSNE(init="pca", random_state=0).fit_transform(features)
    dots = axis.scatter(*flat.T, c=test[1][shown], cmap="tab10", s=8, linewidths=0)
    axis.set_title(f"{name}: {features.shape[1]} features")
    axis.set(xticks=[], yticks=[])
handles = dots.legend_elements(num=None)[0]
figure.legend(
    handles, data.class_names, ncols=10, loc="outside lower center", frameon=False
)
plt.show()

# %% [markdown]
# ## What is left of it all
#
# The file `student.keras` has the student and nothing else: no teacher, no extra layer.

# %%
loaded = keras.models.load_model("student.keras")
print(f"{accuracy(loaded):.2f} %, {os.path.getsize('student.keras'):,} bytes")
print("Layers:", ", ".join(type(layer).__name__ for layer in loaded.layers))

# %% [markdown]
# Next: [your own model](2_your_own_model.ipynb), [neighbourhoods in
# TensorBoard](3_neighborhoods_in_tensorboard.ipynb), [from teacher to
# phone](4_from_teacher_to_phone.ipynb). A gain on a few hundred digits is no promise:
# measure it on your own data, with the student alone beside it as here. The
# [README](../README.md) has longer comparisons, with other methods and controls.
