"""A project's stages by engines that many machines share. What an engine calls is in `kar_aug.arrow`.

on_ray      asking and encoding by Ray: the extra "ray"
on_spark    asking by Spark: the extra "spark"
asking      one run of `generate` by whichever: its rows as Parquet, what its workers call, what came of it
stopping    how a run is stopped, wherever its workers are
"""
