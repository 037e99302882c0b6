"""The speed bars: a whole cloud on this machine, measured from outside, each beside its raw primitive in the same run.

What must stay true: a run stands alone, ends by itself and leaves nothing behind; the times are taken by the caller's
clock around real requests and real packets; a figure without its number of samples is not shown. Other work on the
machine makes all figures worse, which is why a ratio to the primitive of the same minute says more than milliseconds.
"""
