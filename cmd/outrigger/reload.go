package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/outrigger-mesh/outrigger/proxy"
)

// Times of watching the configuration file.
const (
	reloadSettle = 100 * time.Millisecond // so that one rewrite is one reload
	reloadPoll   = 10 * time.Second       // a net under file notification
)

// watchFile reloads when the file has other content than before, and on
// SIGHUP in any case. The directory is watched, since editors and Kubernetes
// replace files by renaming. Without a file SIGHUP only opens logs anew.
func watchFile(ctx context.Context, file, digest string, p *proxy.Proxy, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var events chan fsnotify.Event
	if w, err := fsnotify.NewWatcher(); err == nil && file != "" {
		defer w.Close()
		if err := w.Add(filepath.Dir(file)); err == nil {
			events = w.Events
		} else {
			log.Warn("cannot watch the configuration file; it is looked at from time to time", "event", "watch_failed", "file", file, "error", err)
		}
	}
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	settle := time.NewTimer(time.Hour)
	defer settle.Stop()
	// Set once a change has been seen, until the file has been read: a busy
	// folder must not put that off for ever.
	soon := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if !soon {
				soon = true
				settle.Reset(reloadSettle)
			}
			continue
		case <-hup:
			p.Reopen()
			if file == "" {
				continue
			}
			digest = unread
		case <-settle.C:
			soon = false
		case <-poll.C:
		}
		now := digestOf(file)
		if now == digest {
			continue
		}
		digest = now
		// What is wrong is logged and shown by the proxy itself.
		_ = p.Reload(file)
	}
}

// unread is the digest of no content.
const unread = "unread"

// digestOf names the content of the file; empty when it cannot be read.
func digestOf(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
