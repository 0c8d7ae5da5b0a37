"""How well the tools were used: process metrics, from a run folder alone.

`regions`, `orientation`, `marks`, `focus` and `misuse` hold the metrics; `states` and `measures`
apply them to a trajectory, `reading` to a run folder, and `rates` and `tables` average them. The
metrics for crops, turns, lines and points are those of ToolsRL (arXiv 2604.19945), misuse is
IAPO's; both are written anew from their formulas, for neither has public code.
"""
