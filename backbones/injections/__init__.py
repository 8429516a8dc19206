"""Where and how knowledge enters a model: one injection a file, each an `Injection` of `kar_aug.backbones.protocol`.

fields   KAR's: a source's vector, one more field        events   and the vectors of what the user met before

A name of the registry `INJECTIONS` stands for a class here, or anywhere, that is made without arguments. Names joined
by "+" bring what all of them bring.
"""
