"""Measurements of cost: `vcreg bench`."""
