"""Where and how knowledge enters a model: one injection a file, each an `Injection` of `kar_aug.backbones.protocol`.

fields   KAR's: a source's vector, one more field        events   and the vectors of what the user met before

In frozen vectors, the candidate against the user's earlier events and what they were worth to him:
similarity   dense numbers, no expert network            attention   one more field, mixed by what is alike
state   dense numbers, of sums over events that can be kept for a user
retrieval    the most similar of many events, through the experts and an attention
user_similarity   and the candidate against what is known of the user

Without any vector:
codes        semantic ids, each piece one more sparse feature, of the candidate and of earlier events

A name of the registry `INJECTIONS` stands for a class here, or anywhere, that is made without arguments. Names joined
by "+" bring what all of them bring.
"""
