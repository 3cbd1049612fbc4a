// The API of OpenReports: its CustomResourceDefinitions are what policy reports are checked against. Nothing is built.
module kubectl-llmdoctor.test/openreports

go 1.24.2

require github.com/openreports/reports-api v0.2.1
