"""What a training imports, for the process that tests fork from."""

from openrs.run.libraries import quiet

quiet()  # before the libraries are imported, hence E402; and they are imported only to be there, hence F401

import datasets  # noqa: E402, F401
import pyarrow.parquet  # noqa: E402, F401
import tensorboard.summary.writer.record_writer  # noqa: E402, F401
import transformers.models.qwen2.modeling_qwen2  # noqa: E402, F401

import openrs.rewards.functions  # noqa: E402
import openrs.training.lifecycle  # noqa: E402
import openrs.training.record  # noqa: E402
import openrs.training.trainer  # noqa: E402, F401
