"""Do our filters say what the real kube-scheduler says? Random clusters and pods, judged by both."""
