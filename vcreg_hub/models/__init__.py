"""Networks: building them, their weights, their heads, and the `*_vcreg` names."""

# Before any file of this room: timm's import registers the `*_vcreg` names, which needs those files whole.
import timm as timm
