"""Stands for `qemu-img check`: asks our `qcow2 check` the same of the same file, and notes both answers.

    beside.py QEMU_IMG QCOW2 FOLDER ARGUMENT...

ARGUMENT... is what a test gave to qemu-img. The test gets qemu-img's own output and status. FOLDER/answers.log
gets a line for each pair of answers; where they are not word for word the same, FOLDER/kept gets both documents and
a copy of the image. Who is right is judged by the chore that reads the log.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import zlib

QEMU_IMG, OURS, FOLDER = sys.argv[1:4]
ARGUMENTS = sys.argv[4:]

COUNTS = ['corruptions', 'leaks', 'check-errors', 'total-clusters', 'allocated-clusters', 'fragmented-clusters',
          'compressed-clusters', 'image-end-offset']
# Clusters with a wrong refcount: how qemu-img begins their lines, and the codes of our findings.
PLACES = {
    'leaked': ('Leaked', ['leak', 'refcount-too-high']),
    'too-low': ('ERROR', ['refcount-too-low']),
}

# Places are compared where qemu-img has no more to say about them, in bytes: ours stops at 1,000 findings of a code.
MAX_ERROR = 32 << 10
EXTRAS = ['extra-corruptions', 'lost-mappings']

# Options of `qemu-img check` with a value that is a word of its own.
WITH_VALUE = ['-f', '-r', '-T', '--object', '--format', '--repair', '--cache', '--output']


class NotAsked(Exception):
    """Why ours is not asked."""


class Call:
    """The command line: what repairs, and how to ask the same without a repair."""

    def __init__(self, words):
        self.format = None
        self.repair = None
        self.image_opts = False
        self.shared = False
        self.kept = []
        names = []
        words = list(words)
        while words:
            word = words.pop(0)
            if not word.startswith('-'):
                names.append(word)
                continue
            name, equals, value = word.partition('=') if word.startswith('--') else (word[:2], word[2:], word[2:])
            if name in WITH_VALUE and not equals:
                if not words:
                    raise NotAsked('wrong usage')
                value = words.pop(0)
            if name in ('-f', '--format'):
                self.format = value
            elif name in ('-r', '--repair'):
                self.repair = value
            elif name == '--image-opts':
                self.image_opts = True
            elif name in ('-U', '--force-share'):
                self.shared = True
            elif name == '--object':
                self.kept += ['--object', value]
            elif name in ('-T', '--cache'):
                self.kept += ['-T', value]
            elif name not in ('--output', '-q', '--quiet'):
                raise NotAsked('wrong usage')
        if len(names) != 1:
            raise NotAsked('wrong usage')
        self.name = names[0]

    def file(self):
        """The local file behind the name, and whether the name says more than that file's."""
        if self.format not in (None, 'qcow2'):
            raise NotAsked(f'format {self.format}')
        wrapped = self.image_opts
        if self.image_opts:
            path = file_of(options(self.name))
        elif self.name.startswith('json:'):
            wrapped, path = True, file_of(flat(json.loads(self.name[5:])))
        elif self.name.startswith('blkdebug:'):
            wrapped, path = True, self.name.split(':', 2)[2]
        elif os.path.exists(self.name):
            path = self.name
        elif ':' in self.name:
            raise NotAsked(f"protocol {self.name.split(':')[0]}")
        else:
            raise NotAsked('no such file')
        if self.format is None and not is_qcow2(path):
            raise NotAsked('no qcow2 image')
        return path, wrapped

    def theirs(self, path, wrapped):
        """What qemu-img answers when it is not to repair anything."""
        words = [QEMU_IMG, 'check', '--output=json'] + self.kept + (['-U'] if self.shared else [])
        # Through a driver that makes errors up, there is nothing to compare with: ask about the file itself.
        if wrapped and 'blkdebug' in self.name:
            words += ['-f', 'qcow2', path]
        elif self.image_opts:
            words += ['--image-opts', self.name]
        else:
            words += (['-f', self.format] if self.format else []) + [self.name]
        return answer(words)

    def ours(self, path):
        return answer([OURS, path, 'check', '--output=json'] + (['-U'] if self.shared else []))


def options(text):
    """`a=b,c=d`, where a comma in a value is written twice."""
    pairs = (part.replace('\0', ',').partition('=') for part in text.replace(',,', '\0').split(','))
    return {key: value for key, _, value in pairs}


def flat(tree, prefix=''):
    """A tree of objects as `a.b.c` keys."""
    pairs = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            pairs.update(flat(value, f'{prefix}{key}.'))
        else:
            pairs[prefix + key] = value
    return pairs


def file_of(pairs):
    """The file below the drivers of a node, where they are known to show it as it is."""
    if pairs.get('driver', 'qcow2') != 'qcow2':
        raise NotAsked(f"format {pairs['driver']}")
    node = 'file.'
    while pairs.get(node + 'driver') in ('blkdebug', 'raw'):
        node += 'image.' if pairs[node + 'driver'] == 'blkdebug' else 'file.'
    driver = pairs.get(node + 'driver', 'file')
    if driver != 'file' or node + 'filename' not in pairs:
        raise NotAsked(f'protocol {driver}')
    if any(key.startswith(node) and key.endswith(('.offset', '.size')) for key in pairs):
        raise NotAsked('part of a file')
    return pairs[node + 'filename']


def is_qcow2(path):
    try:
        with open(path, 'rb') as file:
            return file.read(4) == b'QFI\xfb'
    except OSError as error:
        raise NotAsked('no such file') from error


def answer(words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    error = done.stderr.decode(errors='replace')
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = None
    return {'words': words, 'status': done.returncode, 'document': document, 'error': error}


def counted(one, places):
    """The status, and counts and places where anything was counted, as `key=value` words."""
    document = one['document']
    words = [f"status={one['status']}"]
    if document is None:
        return words
    words += [f'{key}={document.get(key, 0)}' for key in COUNTS]
    return words + [f'{name}-at={ranges_text(places(one, name))}' for name in PLACES if places]


def places_of_theirs(cluster_size):
    """Where qemu-img sees wrong refcounts: it has a line for each cluster."""
    def places(one, name):
        numbers = re.findall(rf'^{PLACES[name][0]} cluster (\d+) refcount=', one['error'], re.MULTILINE)
        return [(int(number) * cluster_size, (int(number) + 1) * cluster_size) for number in numbers]
    return places


def places_of_ours(cluster_size):
    """Where we see them: a finding for each run of clusters."""
    def places(one, name):
        found = [finding for finding in one['document']['findings'] if finding['code'] in PLACES[name][1]]
        matches = [re.fullmatch(r'(?:\d+ )?clusters? (\w+)(?:-(\w+))?', finding['where']) for finding in found]
        starts = [(int(match[1], 16), match[2]) for match in matches]
        return [(start, int(end, 16) if end else start + cluster_size) for start, end in starts]
    return places


def ranges_text(ranges):
    """Ranges without the borders between neighbours; many are a checksum."""
    borders = sorted(set(start for start, _ in ranges) ^ set(end for _, end in ranges))
    text = '-'.join(f'{border:#x}' for border in borders)
    return text if len(borders) <= 16 else f'{len(borders)}-borders-{zlib.crc32(text.encode()):08x}'


def last_line(one):
    start = one['error'].rstrip().rfind('\n') + 1
    return one['error'][start:].strip().replace('\t', ' ')


def cluster_size_of(path):
    with open(path, 'rb') as file:
        head = file.read(24)
    return 1 << min(int.from_bytes(head[20:], 'big'), 63)


def told(one):
    """What else our document has: what qemu-img does not count, and the codes of all that is wrong."""
    document = one['document'] or {}
    words = [f'{key}={document[key]}' for key in EXTRAS if document.get(key)]
    codes = {finding['code'] for finding in document.get('findings', []) if finding['severity'] == 'error'}
    return words + [f'finding={code}' for code in sorted(codes)]


def note(*fields):
    """Adds a line for this call, in one write: tests run side by side."""
    test = os.path.basename(os.environ.get('TEST_DIR', '?')).rpartition('-file-')[2]
    text = '\t'.join([test, shlex.join(ARGUMENTS), *fields]).replace('\n', ' | ')
    with open(os.path.join(FOLDER, 'answers.log'), 'a', encoding='utf-8') as log:
        log.write(text + '\n')


def compare(call, when):
    path, wrapped = call.file()
    theirs, ours = call.theirs(path, wrapped), call.ours(path)
    cluster_size = cluster_size_of(path)
    few = len(theirs['error']) < MAX_ERROR
    their_words = counted(theirs, places_of_theirs(cluster_size) if few else None)
    our_words = counted(ours, places_of_ours(cluster_size) if few else None)
    kept = '-'
    if their_words != our_words:
        kept = tempfile.mkdtemp(dir=os.path.join(FOLDER, 'kept'))
        for name, one in (('theirs', theirs), ('ours', ours)):
            with open(os.path.join(kept, name + '.json'), 'w', encoding='utf-8') as file:
                json.dump({**one, 'error': one['error'][:MAX_ERROR]}, file, indent=1)
        subprocess.run(['cp', '--sparse=always', '--reflink=auto', path, os.path.join(kept, 'image')], check=False)
    errors = ' | '.join(last_line(one) for one in (theirs, ours))
    note(when, ' '.join(their_words), ' '.join(our_words + told(ours)), errors, kept)
    return theirs['status'], ' '.join(our_words)


def main():
    try:
        call = Call(ARGUMENTS[1:])
        asked, ours = compare(call, 'before repair' if call.repair else 'as it is')
    except NotAsked as reason:
        call = None
        note('not asked', str(reason))
    status = subprocess.call([QEMU_IMG] + ARGUMENTS)
    if call and call.repair:
        compare(call, 'after repair')
    elif call and status != asked and 'blkdebug' not in call.name:
        # What the test was told is not what we compared with.
        note('as the test saw it', f'status={status}', ours, '', '-')
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
