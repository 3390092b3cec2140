package limiter

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	for in, want := range map[string]redisReply{
		"+OK\r\n":                    {text: "OK"},
		":12\r\n":                    {numbers: []int64{12}},
		":-1\r\n":                    {numbers: []int64{-1}},
		"$3\r\nabc\r\n":              {text: "abc"},
		"$0\r\n\r\n":                 {},
		"$-1\r\n":                    {},
		"*2\r\n:1\r\n:2\r\n":         {numbers: []int64{1, 2}},
		"*0\r\n":                     {numbers: []int64{}},
		"$4\r\na\r\nb\r\n":           {text: "a\r\nb"},
		":9223372036854775807\r\n+x": {numbers: []int64{9223372036854775807}},
	} {
		got, err := readReply(bufio.NewReader(strings.NewReader(in)))
		if err != nil || got.text != want.text || !slices.Equal(got.numbers, want.numbers) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"HTTP/1.1 400 Bad Request\r\n", "+OK\n", "\r\n", ":\r\n", ":1x\r\n", ":99999999999999999999\r\n", ":-9223372036854775808\r\n", "$-2\r\n", "$99999999\r\nx", "$1\r\nabc",
		"*-1\r\n", "*99\r\n", "*1\r\n+x\r\n", "*1\r\n*1\r\n:1\r\n", "*1\r\n:x\r\n", "$x\r\n", "*x\r\n", "%1\r\n", "+" + strings.Repeat("x", 2*maxLine) + "\r\n",
	} {
		if got, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxLine)); !errors.Is(err, errReply) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"+OK", "$5\r\nab", "*2\r\n:1\r\n", "*2\r\n:1\r\n:"} {
		if got, err := readReply(bufio.NewReader(strings.NewReader(in))); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	var e replyError
	if _, err := readReply(bufio.NewReader(strings.NewReader("-ERR no\r\n"))); !errors.As(err, &e) || e != "ERR no" {
		t.Errorf("%v", err)
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "*2\r\n:1\r\n:2\r\n", "-ERR x\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", ":x\r\n", "*16\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := readReply(bufio.NewReaderSize(strings.NewReader(string(b)), maxLine))
		if len(v.numbers) > maxArray || len(v.text) > maxString {
			t.Errorf("%d numbers, %d bytes", len(v.numbers), len(v.text))
		}
		if err != nil && v.text != "" {
			t.Errorf("%v with %q", err, v.text)
		}
	})
}

func TestCommand(t *testing.T) {
	if got := string(appendCommand(nil, "SET", "a", "")); got != "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n" {
		t.Errorf("%q", got)
	}
}

// Values are told apart in the names of keys, whatever they are.
func TestKeyText(t *testing.T) {
	seen := map[string]bool{}
	long := strings.Repeat("x", maxKey+1)
	for _, values := range [][]string{{"a"}, {"b"}, {""}, {"a", "b"}, {"a", ""}, {"a|1:b"}, {long}, {long + "y"}, {"\x00\r\n"}} {
		var list [][]byte
		for _, v := range values {
			list = append(list, []byte(v))
		}
		k := string(keyText(list))
		if len(k) > maxKey || seen[k] && len(values) == 1 && values[0] != "a|1:b" {
			t.Errorf("%q gives %q", values, k)
		}
		seen[k] = true
	}
}
