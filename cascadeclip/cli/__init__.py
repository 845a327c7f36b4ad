"""The command `cascadeclip`: its commands (`commands`) and what their options are called and mean (`options`).

Imports everything, but only inside the command that needs it: help and a mistyped option answer at once.
"""
