"""Applications over the zoo's models: text reading, sentence ranking, photo rating, and the demo of all three.

Each takes its networks as callables `run({input: array}) -> {output: array}`, so the same code drives a Bessemer
session and any other runtime.
"""
