"""How well the tools were used: process metrics, from a run folder alone.

`regions`, `orientation`, `marks`, `focus` and `misuse` hold the metrics. `states` and `measures`
apply them to a trajectory, `reading` to a run folder. `averages`, `scopes`, `outcomes` and `tables`
make the tables. The metrics for crops, turns, lines and points are those of ToolsRL (arXiv
2604.19945), misuse is IAPO's. Neither has public code, so both follow the formulas in the papers.
"""
