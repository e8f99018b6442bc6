"""Times training steps in PyTorch for bench/train-step.ts: reads a request (JSON) and weights, prints losses and milliseconds as JSON."""
import json
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = nn.Linear(3136, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm(outputs)
        self.projects = inputs != outputs
        if self.projects:
            self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.norm3 = norm(outputs)

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + (self.norm3(self.short(x)) if self.projects else x))


class ResNet20(nn.Module):
    def __init__(self, kind):
        super().__init__()
        norm = nn.BatchNorm2d if kind == "batch" else lambda c: nn.GroupNorm(4, c)
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm1 = norm(16)
        channels = 16
        for s, outputs in enumerate([16, 32, 64]):
            blocks = [Block(channels if b == 0 else outputs, outputs, 2 if s > 0 and b == 0 else 1, norm) for b in range(3)]
            setattr(self, f"stage{s + 1}", nn.ModuleList(blocks))
            channels = outputs
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        for stage in (self.stage1, self.stage2, self.stage3):
            for block in stage:
                x = block(x)
        return self.fc(x.mean((2, 3)))


def main():
    request = json.load(open(sys.argv[1]))
    torch.set_num_threads(request["threads"])
    net = ConvNet() if request["torch"]["kind"] == "convnet" else ResNet20(request["torch"]["norm"])
    data = np.fromfile(sys.argv[2], dtype=np.float32)
    at = 0

    def take(shape):
        nonlocal at
        n = int(np.prod(shape))
        at += n
        return torch.tensor(data[at - n : at]).reshape(shape)

    state = {w["name"]: take(w["shape"]) for w in request["weights"]}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and all(m.endswith("num_batches_tracked") for m in missing), (missing, unexpected)
    x = take(request["input"])
    y = torch.arange(request["input"][0]) % request["classes"]
    optimizer = torch.optim.SGD(net.parameters(), lr=request["rate"], momentum=0.9)
    losses, times = [], []
    for i in range(request["steps"]):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({"losses": losses, "times": times, "version": torch.__version__}))


main()
