# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-lpd/keras-lpd/blob/main/notebooks/4_from_teacher_to_phone.ipynb)
#
# # From teacher to phone
#
# Run the teacher once and keep its features; distil a student from those; write it to a
# file of 8-bit integers; and check that very file. Then the same with three quarters of
# the weights pruned.

# %%
import importlib.util

if not importlib.util.find_spec("keras_lpd"):
    print("Installing keras-lpd ...")
    # %pip install -q "keras-lpd[examples,compress] @ git+https://github.com/keras-lpd/keras-lpd"

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.compress import evaluate_litert, prune, to_litert
from keras_lpd.datasets import load_arrays
from keras_lpd.models import cnn_student, cnn_teacher

DATASET = os.environ.get("KERAS_LPD_DATASET", "digits")  # or "fashion_mnist"
EPOCHS = 25 if DATASET == "digits" else 10

data = load_arrays(DATASET)
x, y = data.x_train[:3000], data.y_train[:3000]
test = data.x_test, data.y_test
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
# ## Run the teacher once
#
# `build` takes single samples, neither shuffled nor batched, and writes the teacher's
# features to a folder. `attach` hands them on with the samples; shuffle and batch
# behind it. Called again, `build` finds the folder and checks that teacher and data are
# the same.

# %%
samples = tf.data.Dataset.from_tensor_slices((x, y))
cache = TeacherCache.build(teacher, samples, "teacher_cache", verbose=0)
batches = cache.attach(samples).shuffle(len(x), seed=0).batch(32)
print(f"{cache.count:,} samples, {cache.nbytes / 1e6:.1f} MB, of {cache.kept}")

# %% [markdown]
# What that saves in each epoch is the teacher's forward pass: little with a small
# teacher as this one, nearly everything with a large one
# ([measured](../benchmarks/results/teacher_cache.md)). And features never go to the
# wrong sample: other data, or another order, is refused.

# %%
try:
    cache.attach(samples.shuffle(len(x), seed=0))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Distil
#
# The cache takes the teacher's place; the model need not be in memory any more.

# %%
keras.utils.set_random_seed(0)
distiller = LPDistiller(cache, cnn_student(shape))
distiller.compile("adam", loss, metrics=["accuracy"])
distiller.fit(batches, epochs=EPOCHS, verbose=0)
student = distiller.student
print(
    f"student: {distiller.evaluate(*test, verbose=0, return_dict=True)['accuracy']:.2%}"
)

# %% [markdown]
# ## Quantise, and check the file
#
# `to_litert` writes a LiteRT file (`.tflite`). For `quantize="int8"` it needs some
# hundred training images, to set the ranges of its numbers by; a distiller that was
# fitted knows them, for a plain student give `representative_data=x`.

# %%
checks = {}
for kind in (None, "float16", "int8"):
    path = to_litert(distiller, f"student.{kind or 'float32'}.tflite", quantize=kind)
    checks[kind or "float32"] = evaluate_litert(path, test, distiller)
print(checks["int8"])

# %% [markdown]
# `evaluate_litert` runs the file itself, with the interpreter that phones have. Look
# first at *agreement*: how often file and Keras model choose the same class. Under 97 %
# it warns: the representative images were too few, or scaled unlike those in training.
# Latency and memory are those of this machine, and the latency of a small model on a
# busy one varies.
#
# ## What an app has to do
#
# A file of integers takes and gives integers. Its own scales tell how to make them:

# %%
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("student.int8.tflite")
interpreter.allocate_tensors()
(takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()

scale, zero = takes["quantization"]
image = np.clip(np.round(test[0][:1] / scale) + zero, -128, 127).astype("int8")
interpreter.set_tensor(takes["index"], image)
interpreter.invoke()
scale, zero = gives["quantization"]
logits = scale * (interpreter.get_tensor(gives["index"]).astype("float32") - zero)

print("takes", takes["shape"], takes["dtype"].__name__, takes["quantization"])
print("file:         ", np.round(logits[0], 1))
print("Keras student:", np.round(student(test[0][:1]).numpy()[0], 1))

# %% [markdown]
# ## Prune
#
# `prune` makes of a distiller one that sets the smallest weights to 0 while it goes on
# teaching; `strip()` gives the pruned Keras student. Its file is as large as before,
# until it is packed, as app stores do: look at the bytes after gzip.

# %%
keras.utils.set_random_seed(0)
pruning = prune(distiller, sparsity=0.75)
pruning.compile("adam", loss)
pruning.fit(batches, epochs=EPOCHS // 2, verbose=0)
pruned = pruning.strip()

kernels = [weight.numpy() for weight in pruned.weights if weight.name == "kernel"]
zeros = sum(np.sum(kernel == 0) for kernel in kernels) / sum(k.size for k in kernels)
print(f"{zeros:.0%} of all kernels are 0")

path = to_litert(pruned, "pruned.int8.tflite", "int8", x)
checks["pruned 75 %, int8"] = evaluate_litert(path, test, pruned)

# %% [markdown]
# ## All files beside each other

# %%
print(f"{'':<18} {'bytes':>8} {'gzipped':>8}  accuracy  agreement with its Keras model")
for name, check in checks.items():
    print(
        f"{name:<18} {check.bytes:>8,} {check.gzip_bytes:>8,}  {check.accuracy:8.2%}  "
        f"{check.agreement:.2%}"
    )

figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, check in checks.items():
    axis.plot(
        check.gzip_bytes / 1000, 100 * check.accuracy, "o", markersize=9, label=name
    )
axis.set(xlabel="size of the file, gzipped, kB", ylabel="test accuracy, %")
axis.set_xlim(left=0)
axis.grid(alpha=0.3)
figure.legend(loc="outside right center", frameon=False)
plt.show()

# %% [markdown]
# Further left is smaller, higher is better. On a few hundred test images one of them is
# a fifth of a point or so: small differences in height mean nothing here. The README
# measures all of it on Fashion-MNIST, with clustering and quantisation-aware training
# (`cluster`, `quantize_aware`) too. From a shell: `keras-lpd export --help`.
