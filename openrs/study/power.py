"""Before anything runs: the chance that a claim gets a verdict, by simulating evaluations through the claims' rules.

    evaluation_power(claims, looks, rates)    better, above, gain, score: from simulated sample matrices
    training_power(claims, scenario, seeds)   claims on scores in training

`rates` come from difficulty.rates_of("paper") and difficulty.rates_of("again").
"""
