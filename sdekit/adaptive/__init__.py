"""Steps of every sample's own choosing: on a Brownian tree where there is noise (:mod:`sdekit.adaptive.dyadic`)."""
