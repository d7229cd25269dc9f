"""`LPDistiller`, a Keras model in which a student learns from a teacher."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_lpd.checks import check_model, warn_of_logits
from keras_lpd.features import (
    OUTPUTS,
    FeatureExtractor,
    FeatureFunction,
    Preprocessing,
    default_layer,
    is_graph,
    output_activation,
    own_inputs,
)
from keras_lpd.log import logger
from keras_lpd.losses.cross_entropy import CrossEntropy
from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.losses.locality import LocalityPreserving
from keras_lpd.multi_worker import MultiWorkerFit
from keras_lpd.neighbors import as_vectors, feature_variance
from keras_lpd.refusals import explaining
from keras_lpd.seeds import seed_states
from keras_lpd.taught import inputs_of
from keras_lpd.teacher_cache import TeacherCache
from keras_lpd.training.guard import SPREAD, Guard, MovingAverage
from keras_lpd.training.labelled import counting_labelled
from keras_lpd.training.replicas import (
    WholeBatch,
    batch_of,
    check_neighborhood,
    rows_of,
)
from keras_lpd.training.strategies import check_strategy
from keras_lpd.training.teachers import CachedTeacher, RunningTeacher, Teacher
from keras_lpd.training.terms import (
    AUTO,
    as_losses,
    as_weights,
    automatic_losses,
    make_terms,
)


@keras.saving.register_keras_serializable(package="keras_lpd")
class LPDistiller(MultiWorkerFit, keras.Model):
    """Trains a small student on data, with a large teacher beside it.

    Each step runs the teacher once, up to its feature layer, and the student
    once. To the student's own loss (the cross-entropy) it adds two losses on
    features, both weighted by `gamma`: the paper's locality preserving loss, which
    pulls samples together in the student's feature space that are neighbours in
    the teacher's, and ours, `NeighborProbability`, which pushes the others away.
    `distillation_losses=None` leaves ours out. The two feature layers may have any
    width; nothing but the student is trained (and what other losses own, see
    `auxiliary_parameters`).

    The teacher need know nothing of the student's classes: a backbone without a
    head will do, for which see `teacher_preprocessing` too. Samples without labels
    teach as well, see `keras_lpd.datasets.mix_unlabelled`; the metrics of training
    leave samples of weight 0 out. If batches are dicts, each model takes the
    inputs that it knows by name.

    The distiller is a `keras.Model`: `compile`, `fit` and callbacks work as
    ever. `evaluate` and `predict` are the student's alone. What gets saved is
    the student with its optimizer (and what the losses own); the teacher stays as
    and where it was.

    Args:
        teacher: A trained, built `keras.Model`. It is run in inference mode
            and left exactly as it came, and not run at all on data that a
            `TeacherCache` was attached to. Or that cache: then there is no
            need for the model. `None` only where a distiller without one will
            do (`evaluate`, `predict`); see `set_teacher`.
        student: A built `keras.Model` to be trained.
        gamma: Weight of the locality preserving loss, at least 0. At 0 the
            loss is logged but has no effect. `None` leaves it out, and what comes
            beside it by default: for `distillation_losses` of your own. Defaults
            to `LocalityPreserving.default_weight`; with few labels ten times that
            was best.
        k: How many neighbours it gives a sample in its batch. Defaults to 5.
        sigma: Width of the heat kernel, a positive float or `"auto"`.
        normalize: `None`, `"l2"` or `"spread"`, see
            `locality_preserving_loss`. Defaults to `None`, the paper's loss.
        pooling: `None`, `"avg"` or `"max"`: how feature maps become vectors.
        teacher_layer: Name of the teacher's feature layer; for one inside a
            nested model its path, as in `"backbone/conv5"`. Defaults to the
            layer that feeds the head, which is found by itself.
        student_layer: The same for the student.
        distillation_losses: What comes beside the locality preserving loss: one
            or several `keras.distillation.DistillationLoss`, or `None`. Where they
            include a `LocalityPreserving` of their own, it comes in its place.
            Defaults to `"auto"`, a `NeighborProbability`.
        distillation_loss_weights: A weight for each of them. Defaults to each
            loss's `default_weight`, or 1; for `"auto"` to 120 times
            `gamma`, which is 0.6 by default.
        teacher_features: For a subclassed teacher: a callable `(model, inputs,
            training) -> (features, outputs)`, where `features` is a tensor or
            a dict of tensors by name.
        student_features: The same for a subclassed student.
        teacher_preprocessing: Makes of a batch what the teacher takes, where that
            is not what the student takes: a Keras layer (such as
            `keras.layers.Resizing`), run in inference mode, or any callable on
            TensorFlow tensors. It is the teacher's, and not saved either.
        neighborhood: Under a `tf.distribute` strategy, where losses look that compare
            samples: `"global"`, in the batch of all devices together, so that the
            student learns the same on any number of them; or `"replica"`, in each
            device's part alone, which moves no features between them. Defaults to
            `"global"`.
        name: Name of the distiller.

    Attributes:
        student: The student, to be used or saved by itself at any time.
        teacher: The teacher: the model, the cache, or `None`.
        teacher_layer: Where the teacher's features are taken.
        student_layer: Where the student's features are taken.

    Raises:
        TypeError: If a model is no `keras.Model`, or a loss no
            `DistillationLoss`.
        ValueError: If the models don't fit together, a layer can't be found,
            or a number is out of its range.

    **The defaults** come from a validation split of Fashion-MNIST and two students,
    32 and 500 features wide. Tried were weights of the locality preserving loss from
    0.005 to 0.15, without and with `normalize="spread"`, alone and beside neighbour
    probability at 0.6 and 2 (`benchmarks/results/compare_methods.md`). With few labels
    `gamma=0.05` was better, and with a teacher that has never seen the classes the
    paper's loss alone (`benchmarks/results/few_labels.md`).

    Example:

    >>> distiller = LPDistiller(teacher, student)
    >>> history = distiller.fit(x_train, y_train, epochs=2, verbose=0)
    >>> distiller.student.save("student.keras")

    Source: Chen et al., "Learning Student Networks via Feature Embedding",
    arXiv 1812.06597.
    """

    methods: tuple[str, ...] = ()
    """What was done to the student to compress it, in its order."""

    def __init__(
        self,
        teacher: keras.Model | TeacherCache | None,
        student: keras.Model,
        *,
        gamma: float | None = LocalityPreserving.default_weight,
        k: int = 5,
        sigma: float | str = "auto",
        normalize: str | None = None,
        pooling: str | None = None,
        teacher_layer: str | None = None,
        student_layer: str | None = None,
        distillation_losses: Any = AUTO,
        distillation_loss_weights: float | Sequence[float] | None = None,
        teacher_features: FeatureFunction | None = None,
        student_features: FeatureFunction | None = None,
        teacher_preprocessing: Preprocessing | None = None,
        neighborhood: str = "global",
        name: str = "lp_distiller",
    ):
        check_model("student", student)
        # `autocast=False`: the student gets its inputs as it would by itself.
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        self._settings: dict[str, Any] = {
            "gamma": gamma,
            "k": k,
            "sigma": sigma,
            "normalize": normalize,
            "pooling": pooling,
            "teacher_layer": teacher_layer,
            "student_layer": student_layer,
            "neighborhood": check_neighborhood(neighborhood),
        }
        if distillation_losses == AUTO:
            losses, weights = automatic_losses(
                gamma, pooling, distillation_loss_weights
            )
        else:
            losses = as_losses(distillation_losses)
            weights = as_weights(distillation_loss_weights, losses)
        self.distillation_losses, self.distillation_loss_weights = losses, weights
        self._teacher_function = teacher_features

        self.student = student
        self.built = True
        self._terms = make_terms(
            self.distillation_losses,
            self.distillation_loss_weights,
            gamma,
            LocalityPreserving(k, sigma, normalize, pooling),
        )
        # For the logs of training: one tracker a term, and these two.
        self._term_trackers = [
            keras.metrics.Mean(name=f"{term.name}_loss") for term in self._terms
        ]
        self._student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self._spread_tracker = MovingAverage(name=SPREAD)
        self._guard = Guard([tracker.name for tracker in self._term_trackers])
        self._compiled_by_default = False
        self._evaluating = False
        self._trained_on: Callable[[], Any] | None = None

        self.teacher_layer: str | None = None
        self.student_layer: str | None = student_layer
        if student_layer is None and self._needs_layer("student"):
            self.student_layer = default_layer(student, student_features)
        keys = [term.key("student", self.student_layer) for term in self._terms]
        self._student = FeatureExtractor(
            student, [key for key in keys if key], function=student_features
        )
        self._track_loss_layers()
        self._teacher: Teacher | None = None
        self._preprocesses = teacher_preprocessing is not None
        if teacher is not None:
            self.set_teacher(teacher, teacher_preprocessing)

    @property
    def teacher(self) -> keras.Model | TeacherCache | None:
        return None if self._teacher is None else self._teacher.source

    @property
    def gamma(self) -> float | None:
        """The weight of the locality preserving loss, fixed; `None` without one."""
        return next(
            (t.weight for t in self._terms if isinstance(t.loss, LocalityPreserving)),
            None,
        )

    @property
    def pooling(self) -> str | None:
        """How the first loss on features makes vectors of feature maps."""
        return next((t.pooling for t in self._terms if t.compares_features), None)

    def set_teacher(
        self,
        teacher: keras.Model | TeacherCache,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Gives the distiller another teacher, or a loaded one its first.

        Saved distillers come back without their teacher; this lets `fit` go on.

        Args:
            teacher: A trained, built `keras.Model`, or a `TeacherCache`.
            preprocessing: Makes of a batch what that teacher takes, see
                `teacher_preprocessing`. Defaults to `None`: it takes the batch.

        Raises:
            TypeError: If it is neither.
            ValueError: If it does not fit the student.
        """
        behind: Teacher
        if isinstance(teacher, TeacherCache):
            if preprocessing is not None:
                raise ValueError(
                    "A teacher cache has features of preprocessed inputs already. "
                    "Give `teacher_preprocessing` to `TeacherCache.build` instead."
                )
            behind = CachedTeacher(teacher)
        else:
            behind = RunningTeacher(teacher, self._teacher_function, preprocessing)
            if self._preprocesses and preprocessing is None:
                warnings.warn(
                    "The teacher before had `teacher_preprocessing`, and this one gets "
                    "the batches as they are. If it needs that too: "
                    "`set_teacher(teacher, preprocessing)`.",
                    stacklevel=2,
                )
        layer = self._settings["teacher_layer"]
        if layer is None and self._needs_layer("teacher"):
            layer = behind.feature_layer
        behind.prepare(self._terms, layer, self.student)
        with self.distribute_strategy.scope():
            self._build_losses(behind, layer)
        activations = {
            behind.name: behind.output_activation,
            self.student.name: output_activation(self.student),
        }
        for term in self._terms:
            warn_of_logits(term.loss, activations)
        self.teacher_layer, self._teacher = layer, behind
        if isinstance(behind, RunningTeacher):
            self._preprocesses = preprocessing is not None
        self.train_function = None
        if layer is not None and self.student_layer is not None:
            logger.info(
                "Features: teacher %s, student %s.",
                behind.describe(layer),
                self._student.describe(self.student_layer),
            )

    def _build_losses(self, teacher: Teacher, layer: str | None) -> None:
        """Lets losses make parameters of their own, to be trained and saved here."""
        for term in self._terms:
            if isinstance(term.loss, FeatureLoss):
                teacher_shape = teacher.shape(term.key("teacher", layer))
                student_shape = self._student.shape(
                    term.key("student", self.student_layer)
                )
                if teacher_shape is not None and student_shape is not None:
                    term.loss.build(teacher_shape, student_shape)
        self._track_loss_layers()

    def _track_loss_layers(self) -> None:
        """Takes on what losses train themselves, unless they have no say."""
        self._loss_layers = [
            layer for term in self._terms if term.weight for layer in term.layers
        ]

    # Training

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the student; takes and returns what `keras.Model.fit` does.

        Without `compile`, it trains a classifier: with Adam, the cross-entropy
        that fits the student's output and the labels, and accuracy.

        Raises:
            ValueError: If there is no teacher, or no labels and no other loss
                that keeps the student's features apart; or if the teacher's
                features have NaN or infinite values. The last is found before
                the first update, under XLA (`jit_compile=True`) after it.
        """
        teacher = self._require_teacher()
        teacher.check()
        if teacher.has_changed():
            self.train_function = None
        self._track_loss_layers()  # Some may have been built by hand.
        if not self.compiled:
            with self.distribute_strategy.scope():
                self.compile_by_default()
        check_strategy(self)
        if not self.student.trainable_weights:
            raise ValueError(
                f"Student '{self.student.name}' has no trainable weights. "
                "Set `trainable = True` on it before `fit`."
            )
        self._trained_on = lambda: x  # Keras would track, and save, the data itself.
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.callbacks.append(self._guard)
        else:
            callbacks = [*keras.tree.flatten(callbacks or []), self._guard]
        try:
            with explaining():
                return super().fit(
                    x, y, batch_size, epochs, verbose, callbacks=callbacks, **kwargs
                )
        except Exception:
            self.train_function = None  # It may be cut off, with no optimizer yet.
            raise

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: both models forward, one gradient, one update of the student."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_labels(y)

        x, taught = self._require_teacher()(x)
        batch = batch_of(x, self._settings["neighborhood"])
        with tf.GradientTape() as tape:
            learned = self._student(_after(taught, x), training=True)
            y_pred = learned[OUTPUTS]
            student_loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            student_loss = batch.student_loss(student_loss, self.loss, y, y_pred)
            values = self._distillation_values(batch, taught, learned)
            loss = student_loss
            for term, value in zip(self._terms, values):
                if term.weight:
                    loss = loss + term.weight * value
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_weights
        gradients = tape.gradient(scaled_loss, variables)
        gradients = batch.gradients(self.optimizer, gradients)
        self.optimizer.apply_gradients(zip(gradients, variables))

        trackers = (self._loss_tracker, self._student_loss_tracker)
        for tracker, value in zip(
            (*trackers, *self._term_trackers), (loss, student_loss, *values)
        ):
            tracker.update_state(batch.of_share(value), sample_weight=rows_of(x))
        if self._compares_features:
            spread = ops.sqrt(feature_variance(self._spread_features(batch, learned)))
            batch.track_mean(self._spread_tracker, spread)
        with counting_labelled(self._compile_metrics, sample_weight):
            return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _require_teacher(self) -> Teacher:
        if self._teacher is None:
            raise ValueError(
                "Training needs a teacher, and this distiller has none: distillers "
                "are saved without it. Call `distiller.set_teacher(teacher)`."
            )
        return self._teacher

    def _distillation_values(
        self, batch: WholeBatch, taught: dict[str, Any], learned: dict[str, Any]
    ) -> list[Any]:
        values = []
        for term in self._terms:
            teacher_side = taught[term.key("teacher", self.teacher_layer)]
            student_side = learned[term.key("student", self.student_layer)]
            term.loss.validate_outputs(teacher_side, student_side)
            value = batch.distillation_loss(term, teacher_side, student_side)
            values.append(ops.cast(value, "float32"))
        return values

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """One step on one batch; see `keras.Model.train_on_batch`."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "`train_on_batch` hands each device the whole batch, where a sample's "
                "nearest neighbours would be its own copies. Call `fit`."
            )
        return super().train_on_batch(*args, **kwargs)

    def _spread_features(self, batch: WholeBatch, learned: dict[str, Any]) -> Any:
        term = next(term for term in self._terms if term.compares_features)
        features = learned[term.key("student", self.student_layer)]
        return as_vectors(batch.of_all(features, term.pooling), term.pooling)

    def _check_labels(self, y: Any) -> None:
        if y is not None and self.loss is not None:
            return
        if all(term.only_attracts for term in self._terms if term.weight):
            reason = "no labels" if y is None else "no `loss` in `compile`"
            raise ValueError(
                f"There are {reason}, and the distillation losses only pull "
                "samples together: alone they would shrink the student's features "
                "to one point. Give labels (and a loss), or add a distillation "
                "loss that keeps samples apart, for example "
                "`distillation_losses=keras_lpd.NeighborProbability()`."
            )

    # The student's side: its loss, `evaluate`, `predict`

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Scores the student; see `keras.Model.evaluate`."""
        self._evaluating = True
        try:
            with explaining():
                return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """What the student makes of inputs; see `keras.Model.predict`."""
        with explaining():
            return super().predict(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = own_inputs(self.student, inputs_of(inputs))
        return self.student(inputs, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The student's own loss: what it was compiled with, and regularisation."""
        if y is None or self.loss is None:
            replicas = self.distribute_strategy.num_replicas_in_sync
            total = sum(
                (ops.cast(loss, "float32") for loss in self.losses), ops.zeros(())
            )
            return total if replicas == 1 else total / replicas
        loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        if self._compiled_by_default and isinstance(self.loss, CrossEntropy):
            self._compiled_by_default = False  # said once
            known = is_graph(self._student_graph)
            guess = "" if known else " (assumed: a subclassed student)"
            logger.info(
                "Not compiled, so: Adam, %s%s, accuracy.", self.loss.chosen, guess
            )
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    @property
    def metrics(self) -> list[Any]:
        # Compiled metrics that no label has come by to build have no result; and
        # without a loss on features there is no spread to tell of.
        idle = [] if self._compares_features else [self._spread_tracker]
        if self._evaluating:
            idle = self._training_trackers
        left_out = {id(metric) for metric in idle}
        return [
            metric
            for metric in super().metrics
            if getattr(metric, "built", True) and id(metric) not in left_out
        ]

    @property
    def _training_trackers(self) -> list[Any]:
        """Those of the logs that evaluation has no values for."""
        return [self._student_loss_tracker, *self._term_trackers, self._spread_tracker]

    @property
    def output_names(self) -> list[str]:
        # Keras finds losses and metrics that are given by output name with this.
        return self._student_graph.output_names

    def test_step(self, data: Any) -> dict[str, Any]:
        if keras.utils.unpack_x_y_sample_weight(data)[1] is None:
            raise ValueError(
                "Evaluation (and `validation_data`) needs labels. Received none. Give "
                "(x, y), or leave `validation_data` out."
            )
        logs = super().test_step(data)
        training = {tracker.name for tracker in self._training_trackers}
        return {name: value for name, value in logs.items() if name not in training}

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports the student; see `keras.Model.export`."""
        return self.student.export(*args, **kwargs)

    def auxiliary_parameters(self) -> int:
        """How many parameters are trained besides the student's own.

        0 for the locality preserving loss and all losses without variables.
        """
        self._track_loss_layers()
        own = {id(variable) for variable in self.student.trainable_weights}
        return sum(
            math.prod(variable.shape)
            for variable in self.trainable_weights
            if id(variable) not in own
        )

    def feature_extractor(
        self, role: str, layer: str | None = None
    ) -> FeatureExtractor:
        """One forward pass of teacher or student, as its features are compared here.

        Args:
            role: `"teacher"` or `"student"`.
            layer: Another layer than the one that is compared here.

        Returns:
            A `FeatureExtractor` of that one layer, and the outputs.

        Raises:
            ValueError: If there is no such model: the teacher is a cache, or missing.

        Example:

        >>> extract = LPDistiller(teacher, student).feature_extractor("student")
        >>> extract(x_train[:32], training=False)["features"].shape
        TensorShape([32, 32])
        """
        if role == "student":
            function = self._student.function
            layer = layer or self.student_layer or default_layer(self.student, function)
            return FeatureExtractor(self.student, [layer], function=function)
        if role != "teacher":
            raise ValueError(
                f"`role` must be 'teacher' or 'student'. Received: role={role!r}"
            )
        behind = self._require_teacher()
        if isinstance(behind, CachedTeacher):
            raise ValueError(
                "The distiller's teacher is a cache, which knows no other samples "
                "than those it was built from."
            )
        layer = layer or self.teacher_layer or behind.feature_layer
        return behind.extractor([layer], outputs=True)

    def _arguments(self) -> dict[str, Any]:
        """What makes the same distiller again, but for the student."""
        teacher = self._teacher
        return {
            **self._settings,
            "teacher": self.teacher,
            "student_layer": self.student_layer,
            "distillation_losses": self.distillation_losses,
            "distillation_loss_weights": self.distillation_loss_weights,
            "teacher_features": self._teacher_function,
            "teacher_preprocessing": None if teacher is None else teacher.preprocessing,
        }

    # Saving: the student and its optimizer, never the teacher

    def __dir__(self) -> list[str]:
        # Keras saves the state of all models and metrics among these attributes.
        trackers = ("_term_trackers", "_student_loss_tracker", "_spread_tracker")
        return [
            name for name in super().__dir__() if name not in ("teacher", *trackers)
        ]

    def save_own_variables(self, store: Any) -> None:
        # Keras forgets how far dropout's random numbers had come; with them a
        # training that was cut off goes on to the very same weights.
        for index, state in enumerate(seed_states(self.student)):
            store[str(index)] = state

    def load_own_variables(self, store: Any) -> None:
        for index, state in enumerate(seed_states(self.student)):
            if str(index) in store:
                state.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        functions = {
            "teacher_features": self._teacher_function,
            "student_features": self._student.function,
        }
        return {
            "name": self.name,
            "student": serialize(self.student),
            **self._settings,
            "distillation_losses": [serialize(x) for x in self.distillation_losses],
            "distillation_loss_weights": list(self.distillation_loss_weights),
            "teacher_preprocessing": self._preprocesses,  # whether there was one
            **{name: f and serialize(f) for name, f in functions.items()},
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> LPDistiller:
        """Makes the distiller again, without a teacher; see `set_teacher`."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        preprocesses = config.pop("teacher_preprocessing", False)
        for key in ("student", "teacher_features", "student_features"):
            if config[key] is not None:
                config[key] = deserialize(config[key], custom_objects=custom_objects)
        config["distillation_losses"] = [
            deserialize(loss, custom_objects=custom_objects)
            for loss in config["distillation_losses"]
        ]
        distiller = cls(None, **config)
        distiller._preprocesses = preprocesses
        return distiller

    # What was not given is chosen

    @property
    def _compares_features(self) -> bool:
        return any(term.compares_features for term in self._terms)

    def _needs_layer(self, role: str) -> bool:
        """Whether there is a loss on features which names no layer itself."""
        return any(t.compares_features and not t.layer(role) for t in self._terms)

    @property
    def _student_graph(self) -> keras.Model:
        """The model that tells what the student's outputs are: itself."""
        return self.student

    def compile_by_default(self, learning_rate: float = 0.001) -> None:
        """Compiles as `fit` does by itself.

        With Adam, the cross-entropy that fits the student's output and the labels, and
        accuracy.

        Args:
            learning_rate: Of Adam. Defaults to 0.001.
        """
        graph = self._student_graph
        if is_graph(graph) and len(graph.outputs) != 1:
            raise ValueError(
                "`fit` without `compile` is for students with one output; "
                f"'{graph.name}' has {len(graph.outputs)}. Call "
                "`compile` with a loss for each."
            )
        activation = output_activation(graph)
        units = graph.outputs[0].shape[-1] if is_graph(graph) else None
        binary = activation == "sigmoid" or units == 1
        accuracy = (
            keras.metrics.BinaryAccuracy(
                name="accuracy", threshold=0.5 if activation else 0.0
            )
            if binary
            else "accuracy"
        )
        self.compile(
            optimizer=keras.optimizers.Adam(learning_rate),
            loss=CrossEntropy(from_logits=activation is None, binary=binary),
            metrics=[accuracy],
        )
        self._compiled_by_default = True


def _after(first: Any, x: Any) -> Any:
    """`x`, held back in a graph until `first` is there: checked, that is."""
    with tf.control_dependencies(tf.nest.flatten(first)):
        return keras.tree.map_structure(
            lambda tensor: None if tensor is None else tf.identity(tensor), x
        )
