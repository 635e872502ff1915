"""Many models by one command: the grid, its packs, where they are trained, what is shown and what is left behind.

    words --grid--> cells --plan--> packs --engine--> workdirs, as python -m nlvc.train makes them
                                                `---> progress --> screen, results.csv
"""
