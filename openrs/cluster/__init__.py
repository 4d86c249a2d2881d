"""Kubernetes: the manifests of k8s/ with a recipe applied; submit, follow, stop, and collect the results."""
