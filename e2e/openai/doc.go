// Package openai holds only tests: the official OpenAI Go client against the
// gateway. It is a module of its own so that the client's dependencies stay out
// of the main one.
//
// Without flags the tests run against a gateway on loopback whose worker is
// scripted. Against a real server, the first of which the tests build and start:
//
//	go test . -args -serve
//	go test . -args -url http://127.0.0.1:8080/v1 -key SECRET
package openai
