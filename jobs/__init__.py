"""Which programs use the pipeline and the engine without being part of them?

`bench/`: benchmarks of the engine, of loading and of whole jobs
`demo/`: two small models, their task and their training
"""
