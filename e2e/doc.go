// Package e2e holds only tests: the terse program as processes that talk over
// sockets, as users run it. Nothing here looks inside a process; what the tests
// know comes from its API, its log and its exit status.
//
// Without flags a small part runs, within a minute. The rest (every KV format,
// failures, network namespaces with a shaped link, which need root) runs with
//
//	go test -timeout 30m ./e2e -full
//
// The module in openai is the official OpenAI Go client as a user of the API.
package e2e
