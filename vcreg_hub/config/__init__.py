"""The parts of a run: frozen dataclasses, their JSON form, and the one way to change a value.

A recipe is a function that returns a `Recipe`; "the same with another value" is `dataclasses.replace`. From the
command line it is `--set path.to.field=value`, which `override` checks against the dataclasses.
"""

from __future__ import annotations

from ..regularizer.ranges import COUNT as COUNT
from ..regularizer.ranges import LARGEST_SEED as LARGEST_SEED
from ..regularizer.ranges import number as number
from ..regularizer.vcreg import Regularizer as Regularizer
from ..regularizer.vcreg import VCReg as VCReg
from .overrides import continued as continued
from .overrides import override as override
from .recipe import Data as Data
from .recipe import Eval as Eval
from .recipe import Evaluation as Evaluation
from .recipe import Metric as Metric
from .recipe import Model as Model
from .recipe import Optim as Optim
from .recipe import Place as Place
from .recipe import Recipe as Recipe
from .recipe import Task as Task
from .recipe import Train as Train
from .recipe import Video as Video
from .serialization import differences as differences
from .serialization import differing as differing
from .serialization import from_json as from_json
from .serialization import to_dict as to_dict
from .serialization import to_json as to_json
