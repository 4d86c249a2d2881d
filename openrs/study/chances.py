"""placeholder until power.py is merged"""

from openrs.study.plan import Powers
from openrs.study.settings import Study


def powers_of(study: Study) -> Powers:
    return {}
