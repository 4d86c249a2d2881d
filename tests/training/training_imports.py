"""What a training imports and keeps for its process, for the process that tests fork from."""

import gc

from openrs.run.libraries import quiet

quiet()  # before the libraries are imported, hence E402; and they are imported only to be there, hence F401

import datasets  # noqa: E402, F401
import deepspeed  # noqa: E402, F401
import lighteval.logging.evaluation_tracker  # noqa: E402
import lighteval.logging.info_loggers  # noqa: E402
import lighteval.tasks.lighteval_task  # noqa: E402, F401
import pyarrow.parquet  # noqa: E402, F401
import tensorboard.summary.writer.record_writer  # noqa: E402, F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: E402

import openrs.cli.main  # noqa: E402
import openrs.evaluation.run  # noqa: E402
import openrs.report.pages.page  # noqa: E402
import openrs.reproduce  # noqa: E402
import openrs.rewards.functions  # noqa: E402
import openrs.training.demo_model  # noqa: E402
import openrs.training.launch  # noqa: E402
import openrs.training.lifecycle  # noqa: E402
import openrs.training.record  # noqa: E402
import openrs.training.train  # noqa: E402
import openrs.training.trainer  # noqa: E402, F401
from openrs.run import manifest  # noqa: E402

get_checkpoint_conversion_mapping("qwen2")
manifest.packages()
gc.collect()
gc.freeze()  # a fork's own collections need not look at any of this
