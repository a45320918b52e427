// A compressed tree of the suffixes of several token sequences, each suffix cut at `depth` tokens, with counts.
//
//   text     [ oldest sequence | ... | newest sequence (open) )     positions only grow; the oldest is dropped first
//   node     an edge with a label text[at .. at + len) from its parent; count: suffixes that run through or end there,
//            ends: those that end there
//
// Rules that stay true in this file:
// - suffixes end at nodes, never inside an edge; a node other than the root without an end has two children or more;
// - text[at - depth of parent .. at + len) spells the whole path, and is its latest occurrence: so dropping the oldest
//   sequence leaves no label that points into it;
// - `best` is the child with the highest count, of equal ones the one seen last (not kept for the root);
// - a node that an open suffix ends at keeps its number: splits make a new upper node, merges free the upper one.
#include <stdlib.h>

enum { ROOT = 1, MAX_CANDIDATES = 4096 };

typedef struct { int64_t at; int32_t len, count, ends, parent, child, next, prev, best; } tree_node;
typedef struct { uint64_t key; int32_t value; } tree_slot;

typedef struct {
  int depth, num_active, is_open;
  int32_t *active;  // active[m - 1]: where the last m tokens of the open sequence end, m < depth
  int32_t *text;
  int64_t base, end, text_room;  // text[0] is position `base`
  int64_t *starts;  // of the sequences, oldest first
  int64_t num_starts, starts_room;
  tree_node *nodes;
  int32_t num_nodes, nodes_room, free_node, used_nodes;
  tree_slot *slots;
  uint64_t num_slots, used_slots;
} suffix_tree;

typedef struct { int32_t cap; float factor, offset; double least; int32_t is_tree; } tree_limits;
typedef struct { int32_t match, count; double score; } tree_found;

// ---- children by (node, token): open addressing, no tombstones ----------------------------------------------

INLINE uint64_t tree_key(int32_t node, int32_t token) { return (uint64_t)(uint32_t)node << 32 | (uint32_t)token; }
INLINE uint64_t tree_home(const suffix_tree *t, uint64_t key) {
  key *= 0x9E3779B97F4A7C15ull;
  return (key ^ key >> 29) & (t->num_slots - 1);
}

static int32_t tree_find(const suffix_tree *t, int32_t node, int32_t token) {
  uint64_t key = tree_key(node, token);
  for (uint64_t i = tree_home(t, key);; i = (i + 1) & (t->num_slots - 1)) {
    if (t->slots[i].key == key) return t->slots[i].value;
    if (!t->slots[i].key) return 0;
  }
}

static void tree_put(suffix_tree *t, int32_t node, int32_t token, int32_t value) {
  if (2 * ++t->used_slots > t->num_slots) {
    tree_slot *old = t->slots;
    uint64_t count = t->num_slots;
    t->num_slots *= 2;
    t->slots = calloc(t->num_slots, sizeof(tree_slot));
    for (uint64_t j = 0; j < count; j++)
      if (old[j].key) {
        uint64_t i = tree_home(t, old[j].key);
        while (t->slots[i].key) i = (i + 1) & (t->num_slots - 1);
        t->slots[i] = old[j];
      }
    free(old);
  }
  uint64_t key = tree_key(node, token), i = tree_home(t, key);
  while (t->slots[i].key && t->slots[i].key != key) i = (i + 1) & (t->num_slots - 1);
  if (t->slots[i].key) t->used_slots--;  // it replaces another child
  t->slots[i] = (tree_slot){key, value};
}

static void tree_remove(suffix_tree *t, int32_t node, int32_t token) {
  uint64_t key = tree_key(node, token), mask = t->num_slots - 1, hole = tree_home(t, key);
  while (t->slots[hole].key != key) hole = (hole + 1) & mask;
  for (uint64_t i = (hole + 1) & mask; t->slots[i].key; i = (i + 1) & mask)
    if (((i - tree_home(t, t->slots[i].key)) & mask) >= ((i - hole) & mask)) {
      t->slots[hole] = t->slots[i];
      hole = i;
    }
  t->slots[hole].key = 0;
  t->used_slots--;
}

// ---- nodes --------------------------------------------------------------------------------------------------

INLINE int32_t tree_token(const suffix_tree *t, int64_t position) { return t->text[position - t->base]; }
INLINE int32_t tree_first(const suffix_tree *t, int32_t node) { return tree_token(t, t->nodes[node].at); }

static int32_t tree_new_node(suffix_tree *t) {
  int32_t node = t->free_node;
  if (node) {
    t->free_node = t->nodes[node].next;
  } else {
    if (t->num_nodes == t->nodes_room) t->nodes = realloc(t->nodes, (t->nodes_room *= 2) * sizeof(tree_node));
    node = t->num_nodes++;
  }
  t->nodes[node] = (tree_node){0};
  t->used_nodes++;
  return node;
}

static void tree_free_node(suffix_tree *t, int32_t node) {
  t->nodes[node] = (tree_node){.next = t->free_node};
  t->free_node = node;
  t->used_nodes--;
}

static void tree_link(suffix_tree *t, int32_t parent, int32_t node) {
  tree_node *n = t->nodes;
  n[node].parent = parent;
  n[node].prev = 0;
  n[node].next = n[parent].child;
  if (n[parent].child) n[n[parent].child].prev = node;
  n[parent].child = node;
  tree_put(t, parent, tree_first(t, node), node);
}

static void tree_unlink(suffix_tree *t, int32_t node) {
  tree_node *n = t->nodes, *x = &n[node];
  if (x->prev) n[x->prev].next = x->next;
  else n[x->parent].child = x->next;
  if (x->next) n[x->next].prev = x->prev;
}

// `by` takes the place of `node` among its siblings; their labels begin with the same token.
static void tree_replace(suffix_tree *t, int32_t node, int32_t by) {
  tree_node *n = t->nodes;
  int32_t parent = n[node].parent;
  n[by].parent = parent;
  n[by].prev = n[node].prev;
  n[by].next = n[node].next;
  if (n[by].prev) n[n[by].prev].next = by;
  else n[parent].child = by;
  if (n[by].next) n[n[by].next].prev = by;
  if (n[parent].best == node) n[parent].best = by;
  tree_put(t, parent, tree_first(t, by), by);
}

INLINE void tree_touch(suffix_tree *t, int32_t parent, int32_t node) {
  int32_t best = t->nodes[parent].best;
  if (!best || t->nodes[node].count >= t->nodes[best].count) t->nodes[parent].best = node;
}

static void tree_choose_best(suffix_tree *t, int32_t parent) {
  tree_node *n = t->nodes;
  int32_t best = n[parent].child;
  for (int32_t c = best; c; c = n[c].next)
    if (n[c].count > n[best].count || (n[c].count == n[best].count && n[c].at > n[best].at)) best = c;
  n[parent].best = best;
}

// ---- a sequence grows ---------------------------------------------------------------------------------------

// The suffix that ends at `v` goes on with the token at position `now`; where it ends then.
static int32_t tree_advance(suffix_tree *t, int32_t v, int32_t token, int64_t now) {
  int32_t c = tree_find(t, v, token);
  tree_node *n = t->nodes;
  if (v != ROOT && n[v].ends == 1) {
    if (!n[v].child) {  // nothing else runs through here: the edge grows
      n[v].at = now - n[v].len++;
      return v;
    }
    if (c && n[v].child == c && !n[c].next) {  // whatever left here went on with this token too
      if (n[c].len > 1) {
        tree_remove(t, v, token);
        n[c].at++;
        n[c].len--;
        tree_put(t, v, tree_first(t, c), c);
        n[v].at = now - n[v].len++;
        return v;
      }
      tree_remove(t, v, token);
      n[c].at = now - n[v].len;
      n[c].len = n[v].len + 1;
      n[c].count++;
      n[c].ends++;
      tree_replace(t, v, c);
      tree_free_node(t, v);
      return c;
    }
  }
  if (v != ROOT) n[v].ends--;
  int32_t to = c;
  if (c && n[c].len == 1) {
    n[c].count++;
    n[c].at = now;
  } else {
    to = tree_new_node(t);
    n = t->nodes;
    n[to].at = now;
    n[to].len = 1;
    n[to].count = 1;
    if (c) {  // split: `to` takes the first token of the edge
      n[to].count += n[c].count;
      tree_replace(t, c, to);
      n[c].at++;
      n[c].len--;
      tree_link(t, to, c);
      n[to].best = c;
    } else {
      tree_link(t, v, to);
    }
  }
  n[to].ends++;
  tree_touch(t, v, to);
  return to;
}

static void tree_append(suffix_tree *t, int32_t token) {
  if (!t->is_open) {
    if (t->num_starts == t->starts_room) t->starts = realloc(t->starts, (t->starts_room *= 2) * sizeof(int64_t));
    t->starts[t->num_starts++] = t->end;
    t->is_open = 1;
  }
  if (t->end - t->base == t->text_room) t->text = realloc(t->text, (t->text_room *= 2) * sizeof(int32_t));
  int64_t now = t->end++;
  t->text[now - t->base] = token;
  t->nodes[ROOT].count++;
  for (int m = t->num_active; m >= 0; m--) {
    int32_t to = tree_advance(t, m ? t->active[m - 1] : ROOT, token, now);
    if (m < t->depth - 1) t->active[m] = to;
  }
  if (t->num_active < t->depth - 1) t->num_active++;
}

// ---- the oldest sequence goes -------------------------------------------------------------------------------

static void tree_forget_suffix(suffix_tree *t, int64_t at, int64_t end) {
  int32_t v = ROOT;
  t->nodes[ROOT].count--;
  while (at < end) {
    int32_t c = tree_find(t, v, tree_token(t, at));
    t->nodes[c].count--;
    if (v != ROOT && t->nodes[v].best == c) tree_choose_best(t, v);
    at += t->nodes[c].len;
    v = c;
  }
  t->nodes[v].ends--;
  if (!t->nodes[v].count) {
    int32_t parent = t->nodes[v].parent;
    tree_remove(t, parent, tree_first(t, v));
    tree_unlink(t, v);
    tree_free_node(t, v);
    v = parent;
    if (v != ROOT) tree_choose_best(t, v);
  }
  int32_t c = t->nodes[v].child;
  if (v == ROOT || t->nodes[v].ends || !c || t->nodes[c].next) return;
  tree_remove(t, v, tree_first(t, c));
  t->nodes[c].at -= t->nodes[v].len;
  t->nodes[c].len += t->nodes[v].len;
  tree_replace(t, v, c);
  tree_free_node(t, v);
}

static void tree_compact(suffix_tree *t) {
  int64_t first = t->num_starts ? t->starts[0] : t->end;
  if (2 * (first - t->base) < t->end - t->base) return;
  memmove(t->text, t->text + (first - t->base), (t->end - first) * sizeof(int32_t));
  t->base = first;
}

// ---- looking ahead ------------------------------------------------------------------------------------------

typedef struct { int32_t node, off; } tree_cursor;  // off tokens of the node's edge are behind it

// Follow `tokens` from the root; node 0 if they do not occur.
static tree_cursor tree_walk(const suffix_tree *t, const int32_t *tokens, int count) {
  tree_cursor at = {ROOT, 0};
  for (int i = 0; i < count; i++) {
    const tree_node *n = &t->nodes[at.node];
    if (at.off < n->len) {
      if (tree_token(t, n->at + at.off) != tokens[i]) return (tree_cursor){0, 0};
      at.off++;
    } else {
      at = (tree_cursor){tree_find(t, at.node, tokens[i]), 1};
      if (!at.node) return at;
    }
  }
  return at;
}

static tree_found tree_path(const suffix_tree *t, tree_cursor from, int most, double least, int32_t *tokens, double *probs) {
  const tree_node *n = t->nodes;
  tree_found found = {0, 0, 0};
  double p = 1;
  int32_t v = from.node, off = from.off;
  while (found.count < most) {
    if (off == n[v].len) {
      int32_t c = n[v].best;
      if (!c) break;
      p *= (double)n[c].count / n[v].count;
      if (p < least) break;
      v = c;
      off = 0;
    }
    tokens[found.count] = tree_token(t, n[v].at + off++);
    probs[found.count++] = p;
    found.score += p;
  }
  return found;
}

typedef struct { double p; int64_t last; int32_t node, off, parent, level; } tree_candidate;

// Most likely first; equal ones: seen last, then nearer the root.
INLINE int tree_is_before(const tree_candidate *a, const tree_candidate *b) {
  if (a->p != b->p) return a->p > b->p;
  if (a->last != b->last) return a->last > b->last;
  return a->level < b->level;
}

static int tree_expand(const suffix_tree *t, tree_candidate from, int index, double least, tree_candidate *to, int room) {
  const tree_node *n = t->nodes;
  if (from.off < n[from.node].len) {
    if (!room) return 0;
    *to = (tree_candidate){from.p, n[from.node].at + from.off, from.node, from.off + 1, index, from.level + 1};
    return 1;
  }
  int count = 0;
  for (int32_t c = n[from.node].child; c; c = n[c].next) {
    double p = from.p * ((double)n[c].count / n[from.node].count);
    if (p >= least && count < room) to[count++] = (tree_candidate){p, n[c].at, c, 1, index, from.level + 1};
  }
  return count;
}

static tree_found tree_branches(const suffix_tree *t, tree_cursor from, int most, double least, int32_t *tokens,
                                double *probs, int32_t *parents, tree_candidate *open) {
  tree_found found = {0, 0, 0};
  int count = tree_expand(t, (tree_candidate){1, 0, from.node, from.off, -1, 0}, -1, least, open, MAX_CANDIDATES);
  while (found.count < most && count) {
    int first = 0;
    for (int i = 1; i < count; i++)
      if (tree_is_before(&open[i], &open[first])) first = i;
    tree_candidate taken = open[first];
    open[first] = open[--count];
    tokens[found.count] = tree_token(t, t->nodes[taken.node].at + taken.off - 1);
    probs[found.count] = taken.p;
    parents[found.count] = taken.parent;
    found.score += taken.p;
    count += tree_expand(t, taken, found.count++, least, open + count, MAX_CANDIDATES - count);
  }
  return found;
}

// ---- the plain interface ------------------------------------------------------------------------------------

suffix_tree *shoal_tree_create(int depth) {
  suffix_tree *t = calloc(1, sizeof(suffix_tree));
  t->depth = depth;
  t->active = calloc(depth, sizeof(int32_t));
  t->text = malloc((t->text_room = 256) * sizeof(int32_t));
  t->starts = malloc((t->starts_room = 16) * sizeof(int64_t));
  t->nodes = calloc(t->nodes_room = 256, sizeof(tree_node));
  t->slots = calloc(t->num_slots = 512, sizeof(tree_slot));
  t->num_nodes = ROOT + 1;
  return t;
}

void shoal_tree_destroy(suffix_tree *t) {
  free(t->active);
  free(t->text);
  free(t->starts);
  free(t->nodes);
  free(t->slots);
  free(t);
}

void shoal_tree_extend(suffix_tree *t, const int32_t *tokens, int count) {
  for (int i = 0; i < count; i++) tree_append(t, tokens[i]);
}

void shoal_tree_close(suffix_tree *t) { t->is_open = t->num_active = 0; }

int shoal_tree_drop(suffix_tree *t) {
  if (t->num_starts - t->is_open < 1) return 0;
  int64_t from = t->starts[0], to = t->num_starts > 1 ? t->starts[1] : t->end;
  for (int64_t at = from; at < to; at++) tree_forget_suffix(t, at, at + t->depth < to ? at + t->depth : to);
  memmove(t->starts, t->starts + 1, --t->num_starts * sizeof(int64_t));
  tree_compact(t);
  return (int)(to - from);
}

int64_t shoal_tree_figure(const suffix_tree *t, int which) {
  switch (which) {
    case 0: return t->nodes_room * (int64_t)sizeof(tree_node) + t->num_slots * (int64_t)sizeof(tree_slot) + 4 * t->text_room;
    case 1: return t->used_nodes;
    case 2: return t->num_starts;
    default: return t->num_starts ? t->end - t->starts[0] : 0;
  }
}

// Copies sequence `index` (oldest is 0) to `out` if given; its length.
int64_t shoal_tree_sequence(const suffix_tree *t, int64_t index, int32_t *out) {
  int64_t from = t->starts[index], to = index + 1 < t->num_starts ? t->starts[index + 1] : t->end;
  if (out) memcpy(out, t->text + (from - t->base), (to - from) * sizeof(int32_t));
  return to - from;
}

// The best continuation over all match lengths of the context's tail; `context` NULL: of the open sequence itself.
void shoal_tree_look(const suffix_tree *t, const int32_t *context, int count, const tree_limits *limits, int32_t *tokens,
                     double *probs, int32_t *parents, tree_found *result) {
  int32_t own[256], up[256];
  double p[256];
  tree_candidate *open = limits->is_tree ? malloc(MAX_CANDIDATES * sizeof(tree_candidate)) : NULL;
  int longest = context ? (count < t->depth ? count : t->depth) - 1 : (t->num_active < t->depth - 1 ? t->num_active : t->depth - 1);
  if (!context && longest == t->end - (t->num_starts ? t->starts[t->num_starts - 1] : 0)) longest--;
  *result = (tree_found){0, 0, 0};
  for (int m = 1; m <= longest; m++) {
    tree_cursor from = {0, 0};
    if (context) from = tree_walk(t, context + count - m, m);
    else from = (tree_cursor){t->active[m - 1], t->nodes[t->active[m - 1]].len};
    if (!from.node || (from.off == t->nodes[from.node].len && !t->nodes[from.node].child)) break;
    int most = (int)(m * limits->factor + limits->offset + 1e-6);
    most = most < 0 ? 0 : most > limits->cap ? limits->cap : most;
    tree_found found = limits->is_tree ? tree_branches(t, from, most, limits->least, own, p, up, open)
                                       : tree_path(t, from, most, limits->least, own, p);
    if (found.score < result->score) continue;
    *result = found;
    result->match = m;
    memcpy(tokens, own, found.count * sizeof(int32_t));
    memcpy(probs, p, found.count * sizeof(double));
    if (limits->is_tree) memcpy(parents, up, found.count * sizeof(int32_t));
  }
  free(open);
}
