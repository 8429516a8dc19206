"""The stages of one kar.toml, joined and callable: what the command line does, without printing.

project      every stage as a method                 workspace/   what stages read and write, and where
prompting    what is asked, before it is sent        watch        how a stage tells of its work
generation   asking, and what can be seen of it      frames       DataFrames as the tables of a project
factors      a scenario's factors, proposed          encoding     answers into vectors
answers      the text cache                          preparation  what models read, ready on the disk
costs        what was spent, and when                comparing    trainings, verdicts, report; export
bill         embeddings that cost money, entered     starting     the kar.toml that a person begins with
"""
