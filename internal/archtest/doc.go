// Package archtest keeps the architecture in step with the code: import rules, the tree of packages, file sizes, words and habits.
package archtest
