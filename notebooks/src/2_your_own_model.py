# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-lpd/keras-lpd/blob/main/notebooks/2_your_own_model.ipynb)
#
# # Your own model
#
# What to turn when the defaults are not for you: which layers are compared, by which
# losses, and how strongly; subclassed models; teachers from `keras.applications`; and
# how to read the warning that the features have collapsed.

# %%
import importlib.util

if not importlib.util.find_spec("keras_lpd"):
    print("Installing keras-lpd ...")
    # %pip install -q "keras-lpd[examples] @ git+https://github.com/keras-lpd/keras-lpd"

# %%
import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_lpd import LocalityPreserving, LPDistiller, NeighborProbability
from keras_lpd.datasets import load_arrays
from keras_lpd.losses import AttentionTransfer
from keras_lpd.models import cnn_student, cnn_teacher

DATASET = os.environ.get("KERAS_LPD_DATASET", "digits")  # or "fashion_mnist"
EPOCHS = 10 if DATASET == "digits" else 4

data = load_arrays(DATASET)
x, y = data.x_train[:3000], data.y_train[:3000]
test = data.x_test, data.y_test
shape = x.shape[1:]
plt.rcParams["figure.dpi"] = 80

keras.utils.set_random_seed(0)
teacher = cnn_teacher(shape)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(data.x_train[:10_000], data.y_train[:10_000], 64, EPOCHS, verbose=0)
print(
    f"teacher: {teacher.evaluate(*test, verbose=0, return_dict=True)['accuracy']:.2%}"
)

# %% [markdown]
# ## Which layers
#
# By default the layer that feeds the head is compared, in both models. It is logged
# once, and can be read. The two may have any width.

# %%
distiller = LPDistiller(teacher, cnn_student(shape))
distiller.teacher_layer, distiller.student_layer

# %% [markdown]
# Name others with `teacher_layer` and `student_layer`. Feature maps are flattened;
# `pooling="avg"` takes the mean of each channel instead, which is less to compare and
# doesn't mind where in the image something is.

# %%
distiller = LPDistiller(
    teacher,
    cnn_student(shape),
    teacher_layer="conv_5",
    student_layer="conv_3",
    pooling="avg",
)

# %% [markdown]
# A layer inside a nested model goes by its path. Where a name is wrong, the error tells
# you what there is.

# %%
layers = keras.layers
nested = keras.Sequential(
    [
        keras.Input(shape),
        keras.Sequential(
            [
                layers.Conv2D(16, 3, padding="same", activation="relu", name="early"),
                layers.MaxPooling2D(),
                layers.Conv2D(32, 3, padding="same", activation="relu", name="late"),
                layers.GlobalAveragePooling2D(name="pooled"),
            ],
            name="backbone",
        ),
        layers.Dense(10, name="logits"),
    ],
    name="nested",
)
print("found:", LPDistiller(teacher, nested).student_layer)

distiller = LPDistiller(teacher, nested, student_layer="backbone/late", pooling="avg")
print("chosen:", distiller.student_layer)
try:
    LPDistiller(teacher, nested, student_layer="late")
except ValueError as error:
    print("wrong:", error)

# %% [markdown]
# ## Which losses
#
# Two losses on features are there by default: the paper's locality preserving loss
# (LP), which pulls neighbours together, and neighbour probability (NP), which also
# pushes apart what is no neighbour. `distillation_losses` takes NP's place, with any
# `keras.distillation.DistillationLoss`, one or several, each with its weight. `gamma`
# is the weight of LP, and `gamma=None` leaves LP out. Each loss has its own line in the
# logs.

# %%
logging.getLogger("keras_lpd").setLevel(logging.WARNING)  # It has said all that.

choices = {
    "the default": {},
    "LP alone, as in the paper": {"distillation_losses": None},
    "NP and attention transfer": {
        "gamma": None,
        "distillation_losses": [
            NeighborProbability(),
            AttentionTransfer(teacher_layer_name="conv_4", student_layer_name="conv_2"),
        ],
        "distillation_loss_weights": [0.6, 100.0],
    },
    "LP twice, NP": {
        "distillation_losses": [
            LocalityPreserving(),
            LocalityPreserving(
                pooling="avg",
                teacher_layer_name="pool_2",
                student_layer_name="pool_1",
                name="early",
            ),
            NeighborProbability(),
        ],
        "distillation_loss_weights": [0.005, 0.001, 0.6],
    },
}
for name, settings in choices.items():
    keras.utils.set_random_seed(1)
    distiller = LPDistiller(teacher, cnn_student(shape), **settings)
    logs = distiller.fit(x, y, batch_size=64, epochs=2, verbose=0).history
    values = {key: round(logs[key][-1], 3) for key in logs if key.endswith("_loss")}
    print(f"{name}: {values}")

# %% [markdown]
# (Two epochs show what is in the logs, not which is better. The README compares them at
# length.)
#
# ## How strongly: gamma, and the collapse
#
# LP alone only pulls. Nothing but the cross-entropy holds the features apart, so with
# too large a `gamma` they shrink to one point: all distances are 0 then, and LP is
# content. `feature_spread` in the logs is how far the features lie from their mean.
# Here are five trainings with a brisk learning rate, of which one is meant to go wrong.

# %%
trials = {
    "gamma=0": {"gamma": 0.0},
    "gamma=0.005 (default)": {},
    "gamma=0.5": {"gamma": 0.5},
    "gamma=50": {"gamma": 50.0},
    'gamma=0.5, normalize="spread"': {"gamma": 0.5, "normalize": "spread"},
}
curves = {}
for name, settings in trials.items():
    keras.utils.set_random_seed(1)
    distiller = LPDistiller(
        teacher, cnn_student(shape), distillation_losses=None, **settings
    )
    distiller.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    history = distiller.fit(
        x, y, batch_size=64, epochs=EPOCHS, validation_data=test, verbose=0
    )
    curves[name] = history.history
    print(f"{name}: {history.history['val_accuracy'][-1]:.1%}")

# %% [markdown]
# `gamma=50` gave the warning: `feature_spread` fell under a tenth of what it had been.
# The message says by how much, and what to do.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for name, logs in curves.items():
    epochs = range(1, EPOCHS + 1)
    spread = np.maximum(logs["feature_spread"], 1e-4)
    left.plot(epochs, spread, "o-", markersize=4, label=name)
    right.plot(epochs, logs["val_accuracy"], "o-", markersize=4)
left.set(yscale="log", title="feature_spread (cut at 0.0001)", xlabel="epoch")
right.set(ylim=(0, 1), title="val_accuracy", xlabel="epoch")
figure.legend(loc="outside right center", frameon=False)
plt.show()

# %% [markdown]
# Look left first: healthy features spread out as the student learns, collapsed ones lie
# orders of magnitude below. On the right is what that costs. The warning waits for 10 %
# of the largest so far; a spread that only falls is a sign before that. What to do, in
# this order:
#
# 1. Take a tenth of `gamma`, and again, until `feature_spread` rises with the epochs.
# 2. Or keep NP beside LP, the default: it holds apart what is no neighbour.
# 3. Or `normalize="spread"`: distances are measured in units of the spread then, so
#    that shrinking gains nothing.
#
# ## Subclassed models
#
# They can't be looked into. Hand over a function that gives features and outputs; for a
# teacher it is `teacher_features=`.


# %%
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten = layers.Flatten()
        self.body = layers.Dense(32, activation="relu")
        self.head = layers.Dense(10)

    def call(self, inputs):
        return self.head(self.features(inputs))

    def features(self, inputs):
        return self.body(self.flatten(inputs))


def features_and_outputs(model, inputs, training):
    features = model.features(inputs)
    return features, model.head(features)


keras.utils.set_random_seed(1)
net = Net()
net(x[:1])  # builds it
distiller = LPDistiller(teacher, net, student_features=features_and_outputs)
distiller.compile("adam", loss, metrics=["accuracy"])
distiller.fit(x, y, batch_size=64, epochs=EPOCHS, verbose=0)
distiller.evaluate(*test, verbose=0, return_dict=True)

# %% [markdown]
# ## A teacher from keras.applications
#
# A teacher need not know your classes, nor take your images as they are. Of a backbone
# without a head, the output is taken for the features; `teacher_preprocessing` makes of
# a batch what it takes. Here: grey images of 0 to 1 become RGB of 32x32, scaled as
# MobileNetV2 wants them.
#
# With `weights=None`, so that this notebook needs no download, that teacher knows
# nothing. In earnest write `weights="imagenet"`, and a size that it was trained with,
# such as 96x96. So this shows how it is wired, and no gain.

# %%
backbone = keras.applications.MobileNetV2(
    (32, 32, 3), alpha=0.35, include_top=False, pooling="avg", weights=None
)


def for_the_backbone(images):
    images = keras.ops.image.resize(255.0 * images, (32, 32))
    images = keras.ops.repeat(images, 3, axis=-1)
    return keras.applications.mobilenet_v2.preprocess_input(images)


keras.utils.set_random_seed(1)
distiller = LPDistiller(
    backbone, cnn_student(shape), teacher_preprocessing=for_the_backbone
)
distiller.fit(x[:1024], y[:1024], batch_size=64, epochs=2, verbose=0).history

# %% [markdown]
# A large teacher takes most of the time of each epoch. Run it once, and keep its
# features on disk: [from teacher to phone](4_from_teacher_to_phone.ipynb) shows the
# cache.
