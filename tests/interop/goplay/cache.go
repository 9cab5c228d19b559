package main

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Provider records that wait to be looked at; the DHT handler waits for room.
const maxProviderNews = 1000

// labelNamespaces are the first parts of labels, in the order of search results.
var labelNamespaces = []string{"skills", "domains", "modules", "locators"}

// labelCache is what a reference node knows of the records of others: a key
// <label>/<cid>/<peer id> for each label, fed by gossip and by provider records.
// Nothing of it is checked, and nothing expires within a test.
type labelCache struct {
	mu   sync.RWMutex
	keys map[string]labelSeen
	news chan providerNews
}

// labelSeen is the value behind a key.
type labelSeen struct {
	Timestamp time.Time `json:"timestamp"`
	LastSeen  time.Time `json:"last_seen"`
}

// providerNews says that a peer provides a record.
type providerNews struct {
	cid  string
	from peer.ID
}

// labelEntry is a key taken apart.
type labelEntry struct{ key, namespace, value, cid, peer string }

// labelQuery asks for labels: skill, domain, module, locator, or empty for all.
type labelQuery struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

func newLabelCache() *labelCache {
	return &labelCache{keys: map[string]labelSeen{}, news: make(chan providerNews, maxProviderNews)}
}

func readLabelKey(key string) (labelEntry, bool) {
	part := strings.Split(key, "/")
	n := len(part)
	if n < 5 || part[0] != "" || !slices.Contains(labelNamespaces, part[1]) {
		return labelEntry{}, false
	}
	return labelEntry{key, part[1], strings.Join(part[2:n-2], "/"), part[n-2], part[n-1]}, true
}

// put writes one key for each label, over what is there.
func (c *labelCache) put(record string, from peer.ID, labels []string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range labels {
		c.keys[path.Clean(l+"/"+record+"/"+from.String())] = labelSeen{at, time.Now()}
	}
}

// refresh moves last_seen of every key of a record at a peer; false if there is none.
func (c *labelCache) refresh(record string, from peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, end := false, "/"+record+"/"+from.String()
	for k, seen := range c.keys {
		if strings.HasSuffix(k, end) {
			seen.LastSeen, known = time.Now(), true
			c.keys[k] = seen
		}
	}
	return known
}

// entries gives the keys in the order of search results: by namespace, then by key.
func (c *labelCache) entries() []labelEntry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]labelEntry, 0, len(c.keys))
	for k := range c.keys {
		if e, ok := readLabelKey(k); ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b labelEntry) int {
		if d := slices.Index(labelNamespaces, a.namespace) - slices.Index(labelNamespaces, b.namespace); d != 0 {
			return d
		}
		return strings.Compare(a.key, b.key)
	})
	return out
}

// matches follows the rules of the network: hierarchies match from the top, locators
// as a whole, and a query without a type matches everything.
func (q labelQuery) matches(e labelEntry) bool {
	switch q.Type {
	case "":
		return true
	case "locator":
		return e.namespace == "locators" && e.value == q.Value
	default:
		return e.namespace == q.Type+"s" && (e.value == q.Value || strings.HasPrefix(e.value, q.Value+"/"))
	}
}

// search gives one result for each record: the first peer whose labels match enough of
// the queries. Keys of self do not count.
func (c *labelCache) search(queries []labelQuery, least, limit int, self string) []object {
	var asked []labelQuery
	for _, q := range queries {
		if !slices.Contains(asked, q) {
			asked = append(asked, q)
		}
	}
	entries := c.entries()
	matched := map[[2]string]map[int]bool{}
	for _, e := range entries {
		at := [2]string{e.cid, e.peer}
		for i, q := range asked {
			if q.matches(e) {
				if matched[at] == nil {
					matched[at] = map[int]bool{}
				}
				matched[at][i] = true
			}
		}
	}
	out, done := []object{}, map[string]bool{}
	for _, e := range entries {
		score := len(matched[[2]string{e.cid, e.peer}])
		if e.peer == self || done[e.cid] || score < max(least, 1) {
			continue
		}
		done[e.cid] = true
		out = append(out, object{"cid": e.cid, "peer": e.peer, "score": score})
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return out
}

// recordLabels are the labels that a record is announced with.
func recordLabels(data []byte) ([]string, error) {
	type named struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	var r struct {
		Skills, Domains, Modules, Locators []named
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	var out []string
	for i, list := range [][]named{r.Skills, r.Domains, r.Modules, r.Locators} {
		for _, e := range list {
			name := e.Name
			if labelNamespaces[i] == "locators" {
				name = e.Type
			}
			out = append(out, "/"+labelNamespaces[i]+"/"+name)
		}
	}
	return out, nil
}

// readProviders looks at provider records one after the other, as a reference node does:
// known labels are refreshed, others are learned by pulling the record, whose bytes are
// not compared with the name.
func (n *node) readProviders(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case news := <-n.cache.news:
			n.learn(ctx, news)
		}
	}
}

func (n *node) learn(ctx context.Context, news providerNews) {
	if n.cache.refresh(news.cid, news.from) {
		return
	}
	o := object{"cid": news.cid, "peer": news.from.String()}
	var got PullResponse
	err := n.client.CallContext(ctx, news.from, rpcService, "Pull", &RecordRef{news.cid}, &got)
	var labels []string
	if err == nil {
		labels, err = recordLabels(got.Data)
	}
	if err != nil {
		o["error"] = err.Error()
		n.out.event("learn_failed", o)
		return
	}
	n.cache.put(news.cid, news.from, labels, time.Now())
	o["labels"] = labels
	n.out.event("learned", o)
}
