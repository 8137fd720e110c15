"""What is found and what it means: figures, gates, results. Arrays in, answers out.

Nothing here knows a runner or a report, and importing it imports no numpy.
"""
