"""One kind of place a file. `kar_aug.registry.PLACES` names them."""
