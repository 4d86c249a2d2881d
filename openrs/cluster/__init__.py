"""Kubernetes: the manifests of k8s/ with a recipe applied, sent, followed, stopped and their results brought home."""
