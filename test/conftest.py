"""This folder is on the path, so that a spec can name the environments of `probes` ("probes:ActionReward")."""
