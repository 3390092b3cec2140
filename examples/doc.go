// Package examples runs each of the examples beside it with the built binary.
package examples
