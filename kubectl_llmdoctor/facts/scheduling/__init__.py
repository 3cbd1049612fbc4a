"""Why a pod has no node: the scheduler's own words, and what each node of the snapshot says to the pod's demands.

Two sources that check each other. The message (`FitError.Error` in kube-scheduler's `framework/types.go`) counts
reasons over all nodes, only the first failing plugin of each. The verdicts are this package's own evaluation of the
scheduler's filters over the snapshot, all reasons of each node, in its order (`apis/config/v1/default_plugins.go`,
1.36).

`message` parses the words. `judge` puts a question (`ask`) to all filters, one module a family: `filters` that look at
one node, `attachments` and `volumes`, `topology` (other pods), `claims` (devices). A filter gives reasons, or a gap
where it cannot know: a list that was not read, a selector that is not evaluated here. `verdict` is what a node says;
`pending` joins words and verdicts, and asks again with something changed (`where`); `placement` is the table of the
report.
"""
